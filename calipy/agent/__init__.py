"""The composition root of a node's agent: builds the parts in order, joins them, runs them until one dies.

`main` is the order of things; `feed` brings the store's news to those who need it; `joints` fit one part's Protocol to
another part. No feature lives here, and nothing is wired anywhere else.
"""

from calipy.agent.main import run

__all__ = ["run"]
