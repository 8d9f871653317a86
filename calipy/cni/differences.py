"""CHECK: how what the kernel has differs from what a pod's wiring is to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from calipy.cni import wiring as plans
from calipy.cni.wiring import GATEWAYS, HOST_MAC, PodRoute, Wiring
from calipy.netlink.rtnetlink import NUD_PERMANENT, Link
from calipy.resources.cidrs import family_of


class Observed(Struct, frozen=True, gc=False, kw_only=True):
    """What the kernel has of a pod's wiring."""

    host: Link | None = None
    pod: Link | None = None
    addresses: tuple[str, ...] = ()
    """On the pod's link, as prefixes."""
    routes: tuple[PodRoute, ...] = ()
    """Through the pod's link."""
    neighbours: Mapping[str, tuple[str, int]] = {}
    """On the pod's link: address -> (MAC, state)."""
    sysctls: Mapping[str, str] = {}
    """Path -> value of both ends' settings; what can't be read is missing."""
    host_routes: Mapping[str, tuple[str, int]] = {}
    """A pod's address -> (destination, link index) of the host's route for it."""


def first_difference(wanted: Wiring, seen: Observed, mac: str = "") -> str:
    """The first difference in words, naming object, what it is and what it should be; empty if there is none.
    `mac` is the pod's as ADD told it; empty = not compared."""
    return next(_differences(wanted, seen, mac), "")


def _differences(wanted: Wiring, seen: Observed, mac: str) -> Iterator[str]:
    if seen.host is None:
        yield f"link {wanted.interface} is gone from the node"
        return
    if seen.pod is None:
        yield f"link {wanted.pod_interface} is gone from the container"
        return
    yield from _links(wanted, seen.host, seen.pod, mac)
    yield from _addresses(wanted, seen)
    yield from _routes(wanted, seen)
    yield from _neighbours(wanted, seen)
    yield from _sysctls(wanted, seen)
    yield from _host_routes(wanted, seen, seen.host.index)


def _links(wanted: Wiring, host: Link, pod: Link, mac: str) -> Iterator[str]:
    for name, field, found, right in (
        (wanted.interface, "alias", host.alias, wanted.container_id),
        (wanted.interface, "MAC address", host.mac, HOST_MAC),
        (wanted.interface, "MTU", host.mtu, wanted.mtu),
        (wanted.interface, "up", host.up, True),
        (wanted.pod_interface, "MAC address", pod.mac, mac or pod.mac),
        (wanted.pod_interface, "MTU", pod.mtu, wanted.mtu),
        (wanted.pod_interface, "up", pod.up, True),
    ):
        if found != right:
            yield f"link {name}: {field} is {found!r}, it should be {right!r}"


def _addresses(wanted: Wiring, seen: Observed) -> Iterator[str]:
    for address in wanted.addresses:
        prefix = f"{address}/{plans.WIDTH[family_of(address)]}"
        if prefix not in seen.addresses:
            yield f"address {prefix} is missing on {wanted.pod_interface} in the container"


def _routes(wanted: Wiring, seen: Observed) -> Iterator[str]:
    for route in plans.pod_routes(wanted):
        if route not in seen.routes:
            via = f" via {route.gateway}" if route.gateway else ""
            yield f"route {route.destination}{via} dev {wanted.pod_interface} is missing in the container"


def _neighbours(wanted: Wiring, seen: Observed) -> Iterator[str]:
    for family in wanted.families:
        mac, state = seen.neighbours.get(GATEWAYS[family], ("", 0))
        if mac != HOST_MAC or not state & NUD_PERMANENT:
            found = f"is {mac or 'unknown'}" + ("" if state & NUD_PERMANENT else ", not permanent")
            yield f"neighbour {GATEWAYS[family]} {found} in the container; it should be {HOST_MAC}, permanent"


def _sysctls(wanted: Wiring, seen: Observed) -> Iterator[str]:
    for setting in (*plans.host_checks(wanted), *plans.pod_sysctls(wanted)):
        found = seen.sysctls.get(setting.path)
        if found != setting.value and not (found is None and setting.optional):
            name = f"net.{setting.path.replace('/', '.')}"
            yield f"setting {name} is {found or 'unreadable'}, it should be {setting.value}"


def _host_routes(wanted: Wiring, seen: Observed, index: int) -> Iterator[str]:
    for address in wanted.addresses:
        prefix = f"{address}/{plans.WIDTH[family_of(address)]}"
        if seen.host_routes.get(address) != (prefix, index):
            yield f"route {prefix} dev {wanted.interface} is missing on the node"
