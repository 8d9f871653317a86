"""What the nodes of a case hold, and the way that a packet takes from one to the next: the second answer."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from calipy.explain.inhabitants import World
from calipy.explain.verdicts import Decision, Packet, Verdict
from calipy.explain.views import compiled
from calipy.explain.walk import Crossing, Objects, Ruleset, Walk, crossing, decisions
from calipy.felix.calc import whole, world
from calipy.felix.calc.change import NodeState
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.resources.pods import Pod
from tests.cases.loading import NODES, TUNNELS


class View(Struct, frozen=True, gc=False):
    """A node's state, and the rules that follow from it."""

    node: str
    state: NodeState
    objects: Objects
    rules: Ruleset

    def crosses(self, packet: Packet) -> Crossing:
        """How a packet crosses this node."""
        return crossing(self.state, packet, own(self.node))


def own(node: str) -> tuple[str, ...]:
    """A node's own addresses."""
    return (*NODES[node], *TUNNELS[node])


def attachments(resources: World, node: str) -> dict[EndpointId, WorkloadEndpoint]:
    """The endpoints that CNI has on a node: those of its pods that still run."""
    pods = [pod for pod in resources.values() if isinstance(pod, Pod) and pod.spec.node_name == node]
    found = {}
    for number, pod in enumerate(pods):
        if pod.finished or pod.spec.host_network:
            continue
        id_ = EndpointId("k8s", f"{pod.metadata.namespace}/{pod.metadata.name}", "eth0")
        found[id_] = WorkloadEndpoint(
            id=id_, container_id=f"c-{pod.metadata.name}", interface=f"cali{node}p{number}",
            addresses=tuple(each.ip for each in pod.status.pod_ips), namespace=pod.metadata.namespace,
            pod=pod.metadata.name,
        )  # fmt: skip
    return found


def view(resources: World, node: str) -> View:
    """What a node makes of the world."""
    state = whole.compute(world.World(node=node, resources=resources, attachments=attachments(resources, node)))
    objects = compiled(state)
    return View(node, state, objects, Ruleset(objects))


def views(resources: World) -> dict[str, View]:
    """All nodes'."""
    return {name: view(resources, name) for name in NODES}


def answer(nodes: Mapping[str, View], packet: Packet) -> Verdict:
    """A packet from the node that it leaves to the one where it arrives, as far as it gets."""
    at = {address: name for name, each in nodes.items() for address in _addresses(each)}
    sender, receiver = at.get(packet.source), at.get(packet.destination)
    free = Decision(direction="egress", allowed=True, reason="not governed")
    arrived = Decision(direction="ingress", allowed=True, reason="not governed")
    if packet.source == packet.destination:
        return Verdict(egress=free, ingress=arrived)
    found = {"egress": free, "ingress": arrived}
    for name in dict.fromkeys(filter(None, (sender, receiver))):
        walk = nodes[name].rules.walk(nodes[name].crosses(packet))
        said = decisions(walk, nodes[name].state)
        if name == sender:
            found["egress"] = said["egress"]
        if name == receiver and "ingress" in said:
            found["ingress"] = said["ingress"]
        if not walk.allowed:
            return _stopped(found, walk)
    return Verdict(egress=found["egress"], ingress=found["ingress"])


def _stopped(found: Mapping[str, Decision], walk: Walk) -> Verdict:
    """Each side's last word has to agree with what became of the packet."""
    egress = found["egress"]
    verdict = Verdict(egress=egress, ingress=found["ingress"] if egress.allowed else None)
    assert not verdict.allowed, walk
    return verdict


def _addresses(view: View) -> list[str]:
    return [*own(view.node), *(address for each in view.state.endpoints.values() for address in each.addresses)]
