"""The composition root of a node's agent: builds the parts in order, joins them, runs them until one dies.

`process` is the way in; `main` is the order of things and who is told what; `feed` brings the store's news to those who
need it; `joints` fit one part's Protocol to another part; the rest are the small loops that no shop owns: this node's
place (`whereabouts`), its own addresses, files on its host. Nothing is wired anywhere else.
"""

from calipy.agent.process import run

__all__ = ["run"]
