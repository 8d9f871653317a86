"""NodeReport (calipy.io/v1alpha1), one of each node's name: what of the policies is programmed there.

It says for each kind up to which revision of the store everything is in the kernel, and what is not. So whoever has
written an object knows by its resourceVersion whether a node has got that far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from calipy.resources.definitions import Definition
from calipy.resources.metadata import Key, Kind, Problem, Resource

REPORTED = (
    "Tier", "NetworkPolicy", "GlobalNetworkPolicy", "KubernetesNetworkPolicy", "NetworkSet", "GlobalNetworkSet",
)  # fmt: skip
"""Kinds that a report tells of."""


class Shortfall(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, order=True):
    """An object that is not in force on the node as it is written, and why."""

    kind: str
    """The object's kind; KubernetesNetworkPolicy is Kubernetes' own NetworkPolicy."""
    namespace: str = ""
    """Its namespace, where it has one."""
    name: str
    """Its name."""
    reason: str
    """What is in force instead, and why."""


class NodeReportStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How far the node's kernel is behind the cluster's policies."""

    programmed: dict[str, str] = {}
    """Kind -> resourceVersion up to which all objects of the kind are in the kernel, but for exceptions."""
    exceptions: tuple[Shortfall, ...] = ()
    """Objects that are not in force as they are written."""


class NodeReport(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="NodeReport"):
    """What of the policies is in force on the node of this name. Nobody but the node's agent writes it."""

    status: NodeReportStatus = NodeReportStatus()
    api_version: Literal["calipy.io/v1alpha1"] = "calipy.io/v1alpha1"

    def reached(self, kind: str, revision: int) -> bool:
        """True if the node has taken in what the store held of a kind at a revision."""
        reached = self.status.programmed.get(kind, "")
        return reached.isdecimal() and int(reached) >= revision

    def shortfall(self, key: Key) -> str:
        """Why an object isn't in force as it is written; empty if it is."""
        found = (
            e for e in self.status.exceptions if (e.kind, e.namespace, e.name) == (key.kind, key.namespace, key.name)
        )
        return next((each.reason for each in found), "")


def problems(report: NodeReport) -> Iterator[Problem]:
    """Revisions are numbers."""
    for kind, revision in report.status.programmed.items():
        if not revision.isdecimal():
            remedy = "leave reports to the nodes' agents"
            yield Problem(f"status.programmed[{kind}]", revision, "is no revision", remedy)


def status(programmed: Mapping[str, int], shortfalls: Mapping[Key, str]) -> NodeReportStatus:
    """A report's content: of the kinds that are reported, sorted."""
    return NodeReportStatus(
        programmed={kind: str(programmed[kind]) for kind in REPORTED if kind in programmed},
        exceptions=tuple(
            Shortfall(kind=key.kind, namespace=key.namespace, name=key.name, reason=shortfalls[key])
            for key in sorted(shortfalls)
            if key.kind in REPORTED
        ),
    )


KIND = Kind(
    name="NodeReport", group="calipy.io", version="v1alpha1", plural="nodereports", type=NodeReport,
    problems=problems, short_names=("nr",),
    # No status subresource: its agent alone writes it, and makes it with what it has to say.
    definition=Definition(short_names=("nr",)),
)  # fmt: skip
