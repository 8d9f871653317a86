"""Places of a lab that send or answer, and sockets in their namespaces: made there they stay there."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from calipy.console.failures import Failure
from calipy.lab.cluster import Lab
from calipy.lab.pods import Sandbox, named, sandboxes
from calipy.lab.topology import OUTSIDE, Host
from calipy.netlink.socket import inside
from calipy.resources.cidrs import family_of

FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class Place(Struct, frozen=True, gc=False, kw_only=True):
    """A namespace that sends or answers."""

    name: str
    kind: Literal["pod", "node", "outside"]
    node: str = ""
    """Where it is, or what it is."""
    netns: Path
    addresses: Mapping[int, str]
    """By family."""


def places(lab: Lab) -> tuple[Place, ...]:
    """Pods, nodes and outside, those that have power."""
    alive = [node for node in lab.plan.nodes if lab.on(node.name)]
    attached = (pod for node in alive for pod in sandboxes(lab, node.name) if pod.addresses)
    return (*(_pod(lab, pod) for pod in attached), *(_host(lab, host) for host in (*alive, lab.plan.outside)))


def place(lab: Lab, reference: str) -> Place:
    """A pod (`name` or `namespace/name`), a node or `outside`, by name. Raises Failure where it has no power or no
    network, or there is none of that name."""
    if reference == OUTSIDE:
        return _host(lab, lab.plan.outside)
    if reference in lab.nodes:
        lab.need_power(reference)
        return _host(lab, lab.nodes[reference])
    pod = named(lab, reference)
    lab.need_power(pod.node)
    if not pod.addresses:
        remedy = f"delete it and make it anew: calipy lab pod delete {pod}"
        raise Failure(f"pod {pod}", "is half made and has no network", remedy)
    return _pod(lab, pod)


def _pod(lab: Lab, pod: Sandbox) -> Place:
    return Place(
        name=pod.name if pod.namespace == "default" else str(pod), kind="pod", node=pod.node,
        netns=Path(f"/proc/{lab.machines[pod.node].pid}/root{pod.netns_path}"), addresses=by_family(pod.addresses),
    )  # fmt: skip


def _host(lab: Lab, host: Host) -> Place:
    return Place(
        name=host.name, kind="node" if host.name in lab.nodes else "outside", node=host.name,
        netns=Path("/proc", str(lab.machines[host.name].pid), "ns/net"),
        addresses={family: host.address(family) for family in lab.plan.versions},
    )  # fmt: skip


def by_family(addresses: Iterable[str]) -> dict[int, str]:
    """Addresses by family, one of each."""
    return {family_of(address): address for address in addresses}


@contextlib.contextmanager
def open_socket(place: Place, family: int, kind: socket.SocketKind, protocol: int = 0) -> Iterator[socket.socket]:
    """A socket in a place's namespace that doesn't block. Raises OSError."""
    namespace = os.open(place.netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with inside(namespace):
            made = socket.socket(FAMILIES[family], kind | socket.SOCK_NONBLOCK, protocol)
    finally:
        os.close(namespace)
    with made:
        yield made
