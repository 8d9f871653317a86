"""A pod's wiring: what both ends of its veth pair are to be, as values and as netlink messages (Calico's, to the bit).

The host's end answers for the gateways 169.254.1.1 and fe80::ecee:eeff:feee:eeee. The pod has both as permanent
neighbours: the kernel would answer ARP for 169.254.1.1 only on a node that has a route to it, a default route that is.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Final

from msgspec import Struct

from calipy.cni.protocol import PodReference
from calipy.netlink import attributes as nla
from calipy.netlink import rtnetlink as rt
from calipy.netlink.messages import Message
from calipy.resources.cidrs import family_of

HOST_MAC: Final = "ee:ee:ee:ee:ee:ee"
GATEWAYS: Final = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}
"""The IPv6 one is what HOST_MAC makes of a link-local address (RFC 4291 appendix A)."""
SOCKET_FAMILIES: Final = {4: rt.AF_INET, 6: rt.AF_INET6}
DEFAULT: Final = {4: "0.0.0.0/0", 6: "::/0"}
WIDTH: Final = {4: 32, 6: 128}
LOOPBACK: Final = 1
_HOST_SETTINGS: Final = {rt.IPV4_PROXY_ARP: 1, rt.IPV4_FORWARDING: 1, rt.IPV4_ROUTE_LOCALNET: 1}
_FIB_MATCH: Final = 0x2000
"""RTM_F_FIB_MATCH: the answer is the matching route, not the flow's (linux/rtnetlink.h)."""
_REMEMBERED: Final = 1024
_ROUTE_HEADER: Final = struct.Struct("=BBBBBBBBI")


class Sysctl(Struct, frozen=True, gc=False):
    """A setting below /proc/sys/net."""

    path: str
    value: str
    optional: bool = False
    """True where a kernel without it is good enough."""


class Wiring(Struct, frozen=True, gc=False, kw_only=True):
    """What a pod's link is to be."""

    interface: str
    """The host's end."""
    pod_interface: str
    container_id: str
    """The host end's alias."""
    mtu: int
    addresses: tuple[str, ...]
    """Without prefix length."""
    queues: int = 1
    pod_mac: str = ""
    """Empty: the kernel's choice."""
    forwarding: bool = False
    """The pod forwards packets (container_settings.allow_ip_forwarding)."""

    @property
    def families(self) -> tuple[int, ...]:
        """4, 6 or both."""
        return _families(self.addresses)


class PodRoute(Struct, frozen=True, gc=False, order=True):
    """A route in the pod's namespace; no gateway: the destination is on the link."""

    destination: str
    gateway: str = ""


@lru_cache(_REMEMBERED)
def _families(addresses: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(sorted({family_of(address) for address in addresses}))


def host_interface(prefix: str, pod: PodReference | None, container_id: str) -> str:
    """The host end's name: Calico's `cali` + 11 hex digits of sha1("<namespace>.<pod>"); outside Kubernetes `cali` +
    the container ID's first 11 characters."""
    if pod is None:
        return prefix + container_id[:11]
    return prefix + hashlib.sha1(f"{pod.namespace}.{pod.name}".encode(), usedforsecurity=False).hexdigest()[:11]


def create(wiring: Wiring, namespace: int) -> Message:
    """The pair, each end made where it belongs, both down. `namespace` is a descriptor of the pod's."""
    return rt.new_veth(
        wiring.interface,
        mac=HOST_MAC,
        mtu=wiring.mtu,
        peer_name=wiring.pod_interface,
        peer_namespace=namespace,
        peer_mac=wiring.pod_mac,
        queues=wiring.queues,
        up=False,
    )


def host_settings(wiring: Wiring, index: int) -> tuple[Message, ...]:
    """The host's end, still down: alias, IPv4 settings, and no link-local address but the one that we give it."""
    return (
        rt.set_link(
            index,
            alias=wiring.container_id,
            ipv4_settings=_HOST_SETTINGS if 4 in wiring.families else None,
            address_generation=rt.ADDRESS_GENERATION_NONE,
        ),
    )


def host_sysctls(wiring: Wiring) -> tuple[Sysctl, ...]:
    """The host end's settings that netlink can't write. To be written while it is down."""
    name = wiring.interface
    settings = [Sysctl(f"ipv6/conf/{name}/accept_ra", "0", optional=True)]
    if 4 in wiring.families:
        settings.append(Sysctl(f"ipv4/neigh/{name}/proxy_delay", "0"))
    if 6 in wiring.families:
        wanted = (("disable_ipv6", "0"), ("accept_dad", "0"), ("proxy_ndp", "1"), ("forwarding", "1"))
        settings += [Sysctl(f"ipv6/conf/{name}/{key}", value) for key, value in wanted]
    return tuple(settings)


def host_checks(wiring: Wiring) -> tuple[Sysctl, ...]:
    """All of the host end's settings by their names below /proc, those that netlink wrote included."""
    name = wiring.interface
    by_netlink = ("proxy_arp", "forwarding", "route_localnet") if 4 in wiring.families else ()
    return (*(Sysctl(f"ipv4/conf/{name}/{key}", "1") for key in by_netlink), *host_sysctls(wiring))


def host_rise(wiring: Wiring, index: int) -> tuple[Message, ...]:
    """The host's end comes up, with the IPv6 gateway's address where there is need of it.

    The link-local prefix is a route of its own: an address with that prefix on a link that forwards joins the subnet's
    anycast group, and leaving it doubles the time of the link's deletion (24 ms to 45, Linux 6.18).
    """
    up = rt.set_link(index, up=True)
    if 6 not in wiring.families:
        return (up,)
    gateway = rt.Address(index=index, family=rt.AF_INET6, address=GATEWAYS[6], prefix_length=128, scope=rt.SCOPE_LINK)
    prefix = rt.Route(family=6, destination="fe80::/64", device=index, protocol=rt.PROTOCOL_KERNEL, metric=256)
    return up, rt.add_address(gateway), rt.append_route(prefix)


def host_neighbours(wiring: Wiring, index: int, mac: str) -> tuple[Message, ...]:
    """The pod's addresses as permanent neighbours of the host's end: the first packet to it waits for no answer. `mac`
    is the pod end's."""
    return tuple(
        rt.put_neighbour(
            rt.Neighbour(
                index=index,
                family=SOCKET_FAMILIES[family_of(address)],
                address=address,
                mac=mac,
                state=rt.NUD_PERMANENT,
            )
        )
        for address in wiring.addresses
    )


def pod_sysctls(wiring: Wiring) -> tuple[Sysctl, ...]:
    """Settings in the pod's namespace. To be written while its link is down."""
    forward = "1" if wiring.forwarding else "0"
    settings = [Sysctl("ipv4/ip_forward", forward)] if 4 in wiring.families else []
    if 6 in wiring.families:
        settings += [Sysctl(f"ipv6/conf/{name}/disable_ipv6", "0") for name in ("all", "default", "lo")]
        settings.append(Sysctl(f"ipv6/conf/{wiring.pod_interface}/accept_dad", "0"))
        settings.append(Sysctl("ipv6/conf/all/forwarding", forward))
    return tuple(settings)


def pod_routes(wiring: Wiring) -> tuple[PodRoute, ...]:
    """The pod's routes, in the order in which they can be added."""
    return _routes(wiring.families)


def _routes(families: tuple[int, ...]) -> tuple[PodRoute, ...]:
    routes: list[PodRoute] = []
    for family in families:
        if family == 4:
            routes.append(PodRoute(f"{GATEWAYS[4]}/32"))
        routes.append(PodRoute(DEFAULT[family], GATEWAYS[family]))
    return tuple(routes)


def pod_settings(wiring: Wiring, index: int) -> tuple[Message, ...]:
    """The pod's end: up, permanent neighbours, routes, addresses; loopback up."""
    return (*_any_pod(wiring.families, index), *(_address(address, index) for address in wiring.addresses))


@lru_cache(_REMEMBERED)
def _any_pod(families: tuple[int, ...], index: int) -> tuple[Message, ...]:
    """Pods' ends differ in nothing but their addresses, and hardly in their index."""
    return (
        rt.set_link(LOOPBACK, up=True),
        rt.set_link(index, up=True),
        *(_neighbour(family, index) for family in families),
        *(_route(route, index) for route in _routes(families)),
    )


def route_question(address: str) -> Message:
    """Asks for the route that the kernel has for an address."""
    family = family_of(address)
    header = _ROUTE_HEADER.pack(SOCKET_FAMILIES[family], WIDTH[family], 0, 0, 0, 0, 0, 0, _FIB_MATCH)
    return Message(rt.GET_ROUTE, 0, header + nla.address(1, address))


def _neighbour(family: int, index: int) -> Message:
    return rt.put_neighbour(
        rt.Neighbour(
            index=index,
            family=SOCKET_FAMILIES[family],
            address=GATEWAYS[family],
            mac=HOST_MAC,
            state=rt.NUD_PERMANENT,
        )
    )


def _route(route: PodRoute, index: int) -> Message:
    return rt.add_route(
        rt.Route(
            family=family_of(route.destination),
            destination=route.destination,
            gateway=route.gateway or None,
            device=index,
            protocol=rt.PROTOCOL_BOOT,
            scope=rt.SCOPE_UNIVERSE if route.gateway else rt.SCOPE_LINK,
        )
    )


def _address(address: str, index: int) -> Message:
    family = family_of(address)
    return rt.add_address(
        rt.Address(index=index, family=SOCKET_FAMILIES[family], address=address, prefix_length=WIDTH[family])
    )
