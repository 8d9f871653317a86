"""On which nodes an object is in force, by the reports of the nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from calipy.resources.metadata import Key
from calipy.resources.node_reports import REPORTED, NodeReport


class Standing(Struct, frozen=True, gc=False, kw_only=True):
    """Where one object, as of one revision, is in force, and why it isn't elsewhere."""

    on: tuple[str, ...]
    missing: Mapping[str, str]
    """Node -> reason."""

    @property
    def everywhere(self) -> bool:
        """True if it is in force on all nodes, and there is one."""
        return bool(self.on) and not self.missing

    def __str__(self) -> str:
        return f"programmed on {len(self.on)} of {len(self.on) + len(self.missing)} nodes"


def is_reported(kind: str) -> bool:
    """True if nodes tell of a kind."""
    return kind in REPORTED


def standing(key: Key, revision: int, nodes: Iterable[str], reports: Mapping[str, NodeReport]) -> Standing:
    """How an object that was last written at `revision` stands on each of `nodes`."""
    found = {node: _hindrance(key, revision, reports.get(node)) for node in sorted(nodes)}
    return Standing(
        on=tuple(node for node, reason in found.items() if not reason),
        missing={node: reason for node, reason in found.items() if reason},
    )


def _hindrance(key: Key, revision: int, report: NodeReport | None) -> str:
    if report is None:
        return "has reported nothing yet: is its agent running?"
    if not report.reached(key.kind, revision):
        reached = report.status.programmed.get(key.kind, "none")
        return f"has not got so far yet: revision {revision} is wanted, {reached} is programmed"
    return report.shortfall(key)
