"""What the nodes of a cluster would compile, and a packet's way through it from node to node: the answer of the rules.

Pure, and the whole calculation at once (`felix.calc.whole`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct, structs

from calipy.conversion.pods import pod_addresses
from calipy.explain.inhabitants import World
from calipy.explain.questions import own_addresses
from calipy.explain.verdicts import Decision, Packet, Verdict
from calipy.explain.walk import Broken, Ruleset, Walk, crossing, decisions
from calipy.felix.calc import configuration, whole, world
from calipy.felix.calc.change import NodeState, everything
from calipy.felix.objects import ObjectName
from calipy.felix.rules.compile import RulesPlanner
from calipy.felix.rules.values import Masquerade, SourceNat
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.metadata import Key, Resource
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod

R = TypeVar("R", bound=Resource)


class View(Struct, frozen=True, gc=False):
    """A node's state, and the rules that follow from it."""

    node: str
    own: tuple[str, ...]
    """The node's own addresses."""
    state: NodeState
    rules: Ruleset

    def walk(self, packet: Packet) -> Walk:
        """The packet's way through this node. Raises Broken."""
        return self.rules.walk(crossing(self.state, packet, self.own))


class Walked(Struct, frozen=True, gc=False):
    """What the rules of all nodes on a packet's way have come to."""

    verdict: Verdict
    masked: bool = False
    """True where it leaves its node under another source address."""


def view(resources: World, node: str) -> View:
    """What a node makes of the world. Its pods' interfaces have names of no meaning: no kernel is asked for them."""
    state = whole.compute(world.World(node=node, resources=resources, attachments=_attachments(resources, node)))
    found = resources.get(Key("Node", node))
    own = own_addresses(found) if isinstance(found, Node) else ()
    return View(node, own, state, Ruleset(compiled(state)))


def compiled(state: NodeState) -> dict[ObjectName, Struct]:
    """All objects of a state, whoever owns them. Raises Broken where a compiler fails."""
    found: dict[ObjectName, Struct] = {}
    for plan in RulesPlanner().plans(everything(state), state):
        if plan is None:
            continue
        if plan.problem:
            raise Broken(f"{plan.owner.kind} {plan.owner.name}: {plan.problem}")
        found.update(plan.objects or {})
    return found


def _attachments(resources: World, node: str) -> dict[EndpointId, WorkloadEndpoint]:
    """The endpoints that CNI has on a node: those of its pods that have addresses of their own."""
    prefix = _interface_prefix(resources, node)
    found = {}
    for number, pod in enumerate(_all(resources, Pod)):
        addresses = pod_addresses(pod)
        if pod.spec.node_name != node or not addresses:
            continue
        id_ = EndpointId("k8s", f"{pod.metadata.namespace}/{pod.metadata.name}", "eth0")
        found[id_] = WorkloadEndpoint(
            id=id_, container_id="", interface=f"{prefix}{number}", addresses=addresses,
            namespace=pod.metadata.namespace, pod=pod.metadata.name,
        )  # fmt: skip
    return found


def _interface_prefix(resources: World, node: str) -> str:
    found = resources.get(Key("Node", node))
    labels = found.metadata.labels if isinstance(found, Node) else {}
    return configuration.merge(node, _all(resources, FelixConfiguration), labels, {}).interface_prefixes[0]


def _all(resources: World, kind: type[R]) -> list[R]:
    return [value for _, value in sorted(resources.items()) if isinstance(value, kind)]


def walked(view_of: Callable[[str], View], packet: Packet, sender: str, receiver: str) -> Walked:
    """What becomes of a packet from node to node, as far as it gets; an empty name is outside of the cluster."""
    verdict = Verdict(
        egress=Decision(direction="egress", allowed=True, reason="not governed"),
        ingress=Decision(direction="ingress", allowed=True, reason="not governed"),
    )
    masked = False
    if packet.source == packet.destination:
        return Walked(verdict)
    for name in dict.fromkeys(filter(None, (sender, receiver))):
        try:
            view = view_of(name)
            walk = view.walk(packet)
        except Broken as broken:
            return Walked(_denied(verdict, f"no kernel would take node {name}'s rules: {broken}"))
        said = decisions(walk, view.state)
        if name == sender:
            verdict = structs.replace(verdict, egress=said.get("egress", verdict.egress))
            masked = any(isinstance(visit.rule.action, Masquerade | SourceNat) for visit in walk.trace)
        if name == receiver:
            verdict = structs.replace(verdict, ingress=said.get("ingress", verdict.ingress))
        if not walk.allowed:
            return Walked(_stopped(verdict, walk))
    return Walked(verdict, masked)


def _stopped(verdict: Verdict, walk: Walk) -> Verdict:
    """The packet was stopped: by what the directions say, or by what has no direction."""
    if not verdict.egress.allowed:
        return structs.replace(verdict, ingress=None)
    by = walk.endings[-1].by
    return _denied(verdict, str(by.rule.origin) if by else walk.endings[-1].chain) if verdict.allowed else verdict


def _denied(verdict: Verdict, reason: str) -> Verdict:
    return structs.replace(verdict, ingress=Decision(direction="ingress", allowed=False, reason=reason))
