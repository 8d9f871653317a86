"""Questions about connections, as users put them: pods, nodes, addresses and ports by name, found among the cluster's
objects. Pure. What is answered: `answers`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeVar

from msgspec import Struct

from calipy.conversion.nodes import node_address
from calipy.conversion.pods import pod_addresses
from calipy.conversion.workloads import named_ports
from calipy.explain.inhabitants import World
from calipy.resources import nodes
from calipy.resources.cidrs import family_of
from calipy.resources.metadata import Key, Resource
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod
from calipy.resources.policy_rules import PROTOCOL_NUMBERS
from calipy.resources.services import Service

R = TypeVar("R", bound=Resource)
Transport = Literal["TCP", "UDP", "SCTP", "ICMP"]
"""ICMP is an echo request, of ICMPv6 in IPv6."""

SOURCE_PORT = 40000
"""That of the packet where nobody asks for another: one of those that kernels choose by themselves."""
_NODE = "node/"
_POD = re.compile(r"(?:(?P<namespace>[^/]+)/)?(?P<name>[^/]+)")
_MOST_NAMED = 8
"""So many of a namespace's pods a message names."""


class Unaskable(Exception):
    """The question can't be put: the message names what is wrong with which value, why, and what to do."""

    def __init__(self, what: str, reason: str, remedy: str) -> None:
        super().__init__(f"{what}: {reason}; {remedy}")


class End(Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=True):
    """One end of a connection."""

    name: str
    """`default/web`, `node/n1`; an address that belongs to neither, itself."""
    kind: Literal["pod", "node", "address"]
    node: str = ""
    """Where it is; empty outside of the cluster."""
    addresses: Mapping[int, str] = {}
    """By family."""


class Question(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """Would this new connection be allowed?"""

    source: End
    destination: End
    protocol: Transport
    port: int = 0
    """0 where the protocol has none."""
    source_port: int = 0


class Ends:
    """The cluster's objects, asked for ends."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owners = dict(self._owned())

    def named(self, text: str, namespace: str) -> End:
        """Whom `default/web`, `web` (of `namespace`), `node/n1` or an address mean. Raises Unaskable."""
        address = _address(text)
        if address:
            return self._of_address(text, address)
        if text.startswith(_NODE):
            return self._node(text.removeprefix(_NODE))
        found = _POD.fullmatch(text)
        if found is None:
            raise Unaskable(repr(text), "is nobody's name", "write NAMESPACE/POD, node/NODE or an address")
        return self._pod(found["namespace"] or namespace, found["name"])

    def whose(self, address: str) -> End | None:
        """The pod or node that has an address."""
        return self._owners.get(address)

    def port(self, end: End, text: str, protocol: Transport) -> int:
        """The number of a port, or of the one that the pod at this end calls so. Raises Unaskable."""
        if text.isdecimal():
            if not 1 <= int(text) <= 65535:
                raise Unaskable(f"port {text!r}", "is none", "write 1 to 65535, or a port's name")
            return int(text)
        pod = self._world.get(Key("Pod", *reversed(end.name.split("/")))) if end.kind == "pod" else None
        if not isinstance(pod, Pod):
            raise Unaskable(f"port {text!r}", f"is a name, but {end.name} is no pod", "write the port's number")
        ports = named_ports(pod)
        found = [each.port for each in ports if each.name == text and each.protocol == PROTOCOL_NUMBERS[protocol]]
        if not found:
            names = {number: name for name, number in PROTOCOL_NUMBERS.items()}
            known = ", ".join(f"{each.name} ({names[each.protocol]}/{each.port})" for each in ports) or "none"
            reason = f"pod {end.name} has no {protocol} port of that name"
            raise Unaskable(f"port {text!r}", reason, f"it names {known}; or write the number")
        return found[0]

    def _of_address(self, text: str, address: str) -> End:
        self._refuse_service(address)
        owner = self._owners.get(address)
        if owner is None:
            return End(name=text, kind="address", addresses={family_of(address): address})
        return End(name=owner.name, kind=owner.kind, node=owner.node, addresses={family_of(address): address})

    def _refuse_service(self, address: str) -> None:
        """Policy sees a connection when its destination has become one of the service's endpoints."""
        for service in self._all(Service):
            spec = service.spec
            if address in map(_address, (spec.cluster_ip, *spec.cluster_ips, *spec.external_ips)):
                name = f"{service.metadata.namespace}/{service.metadata.name}"
                reason = f"is an address of Service {name}, which leads to its endpoints"
                raise Unaskable(address, reason, f"ask for one of them: pycalicoctl get endpointslices -A (of {name})")

    def _node(self, name: str) -> End:
        found = self._world.get(Key("Node", name))
        if not isinstance(found, Node):
            known = ", ".join(node.metadata.name for node in self._all(Node)) or "none"
            raise Unaskable(f"node {name!r}", "does not exist", f"known are {known}")
        end = _node_end(found)
        if not end.addresses:
            raise Unaskable(f"node {name!r}", "has no address yet", "see that its agent runs, or name an address")
        return end

    def _pod(self, namespace: str, name: str) -> End:
        found = self._world.get(Key("Pod", name, namespace))
        what = f"pod {namespace}/{name}"
        if not isinstance(found, Pod):
            here = sorted(pod.metadata.name for pod in self._all(Pod) if pod.metadata.namespace == namespace)
            named = ", ".join(here[:_MOST_NAMED]) + (", ..." if len(here) > _MOST_NAMED else "")
            has = f"namespace {namespace} has {named or 'no pods'}"
            raise Unaskable(what, "does not exist", f"{has}; or name an address, or node/NODE")
        phase = found.status.phase or "unknown"
        if found.finished:
            reason = f"has finished (phase {phase}): its addresses are no longer its own"
            raise Unaskable(what, reason, "name a pod that runs, or an address")
        end = _pod_end(found)
        if not end.node or not end.addresses:
            reason = f"has no {'address' if end.node else 'node'} yet (phase {phase})"
            raise Unaskable(what, reason, "wait until it runs: pycalicoctl get pods -A")
        return end

    def _owned(self) -> Iterator[tuple[str, End]]:
        """Every address and whose it is; of a pod before a node."""
        for node in self._all(Node):
            end = _node_end(node)
            yield from ((address, end) for address in own_addresses(node))
        for pod in self._all(Pod):
            if pod.spec.node_name:
                yield from ((address, _pod_end(pod)) for address in pod_addresses(pod))

    def _all(self, kind: type[R]) -> Iterator[R]:
        return (value for _, value in sorted(self._world.items()) if isinstance(value, kind))


def question(
    ends: Ends, source: End, destination: End, protocol: Transport, port: str, source_port: int = SOURCE_PORT
) -> Question:  # fmt: skip
    """The question about these ends; `port` is a number, a name, or empty for ICMP. Raises Unaskable."""
    if protocol == "ICMP":
        if port:
            raise Unaskable("protocol ICMP", "has no ports", "leave the port out")
        return Question(source=source, destination=destination, protocol=protocol)
    if not port:
        raise Unaskable(f"protocol {protocol}", "wants the port of the destination", "name it: --port 80")
    number = ends.port(destination, port, protocol)
    return Question(source=source, destination=destination, protocol=protocol, port=number, source_port=source_port)


def families(source: End, destination: End, wanted: Literal["4", "6", "both"]) -> tuple[int, ...]:
    """The families to ask for: `both` = those that both ends have. Raises Unaskable where there is none."""
    asked = (4, 6) if wanted == "both" else (int(wanted),)
    found = tuple(family for family in asked if family in source.addresses and family in destination.addresses)
    if found:
        return found
    for end in (source, destination):
        if not set(asked) & set(end.addresses):
            has = " and ".join(f"IPv{family}" for family in sorted(end.addresses))
            raise Unaskable(end.name, f"has {has} alone, not IPv{asked[0]}", "ask for that family, or for another end")
    raise Unaskable(f"{source.name} and {destination.name}", "have no family in common", "name other ends")


def own_addresses(node: Node) -> tuple[str, ...]:
    """All addresses of a node itself, its tunnels' too; that by which others know it comes first in each family."""
    where, notes = node_address(node), node.metadata.annotations
    tunnels = (
        notes.get(nodes.VXLAN_ADDRESS, ""),
        notes.get(nodes.VXLAN_V6_ADDRESS, ""),
        notes.get(nodes.IPIP_ADDRESS, ""),
    )
    stated = (each.address for each in node.status.addresses if each.type in ("InternalIP", "ExternalIP"))
    texts: Iterable[str] = (*where.addresses.values(), *stated, *tunnels)
    return tuple(dict.fromkeys(filter(None, map(_address, texts))))


def _node_end(node: Node) -> End:
    addresses: dict[int, str] = {}
    for address in own_addresses(node):
        addresses.setdefault(family_of(address), address)
    name = node.metadata.name
    return End(name=f"{_NODE}{name}", kind="node", node=name, addresses=addresses)


def _pod_end(pod: Pod) -> End:
    """One on its host's network has the host's addresses."""
    stated = [each.ip for each in pod.status.pod_ips] or [pod.status.pod_ip]
    texts = filter(None, map(_address, stated)) if pod.spec.host_network else pod_addresses(pod)
    return End(
        name=f"{pod.metadata.namespace}/{pod.metadata.name}", kind="pod", node=pod.spec.node_name,
        addresses={family_of(address): address for address in texts},
    )  # fmt: skip


def _address(text: str) -> str:
    """Canonical; empty where it is none. A node's may have its subnet's length."""
    try:
        return str(ipaddress.ip_interface(text).ip)
    except ValueError:
        return ""
