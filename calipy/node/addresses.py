"""Which address is this node's (calico.md 7, IP and IP6): given, or found by one of Calico's methods. Pure; what
can-reach asks of the kernel is `reach`'s."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from calipy.model.links import Link, LinkAddress
from calipy.resources.cidrs import family_of
from calipy.settings import Autodetection

_EXCLUDED = re.compile(
    r"docker|cbr|dummy|podman|virbr|lxcbr|veth|lo|br-|cali|tunl|flannel|kube-ipvs|cni|vxlan(-v6)?\.calico"
    r"|wireguard\.cali|wg-v6\.cali|nodelocaldns"
)
"""Begins of names of links that first-found and skip-interface pass over, as calico/node."""


class NoAddress(ValueError):
    """No address could be taken; the message says what was asked for and what was considered."""

    def __init__(self, message: str, considered: tuple[str, ...]) -> None:
        super().__init__(message)
        self.considered = considered


class Evidence(Struct, frozen=True, gc=False, kw_only=True):
    """What is known of this host."""

    links: Mapping[int, Link]
    addresses: Iterable[LinkAddress]
    current: str = ""
    """The address that the node has had, 10.9.0.11/24. While a method still finds it, it stays."""
    internal: tuple[str, ...] = ()
    """InternalIPs of the Node object."""
    source: str = ""
    """For can-reach: the address from which the host would send to the destination."""
    unreachable: str = ""
    """For can-reach: why there is none."""


class Choice(Struct, frozen=True, gc=False):
    """The node's address with its subnet's prefix length, and what led to it."""

    address: str
    reason: str
    considered: tuple[str, ...] = ()
    """Of each address of the family that a link has, in the order in which they are looked at: where it is, and why it
    was taken or not. Empty where none was looked for."""


def choose(setting: str, method: Autodetection, family: int, evidence: Evidence) -> Choice | None:
    """The node's address of a family; None where it has none and shall have none.

    `setting` is IP's or IP6's value: `none` (an address that the node has stays), `autodetect`, or an address, whose
    prefix length is the link's own where it has none. Raises NoAddress.
    """
    if setting == "none":
        return Choice(evidence.current, "detection is off, the node's address stays") if evidence.current else None
    if setting == "autodetect":
        return _detected(method, family, evidence)
    return _given(setting, evidence)


def _given(setting: str, evidence: Evidence) -> Choice:
    """calico/node takes an address that no link has (a NAT may have it), and says so."""
    interface = ipaddress.ip_interface(setting)
    for address in evidence.addresses:
        if address.address == str(interface.ip):
            name = _link_name(evidence.links, address)
            return Choice(setting if "/" in setting else _spelled(address), f"given, and link {name} has it")
    whole = setting if "/" in setting else str(interface)
    return Choice(whole, "given, though no link of this node has it")


def _detected(method: Autodetection, family: int, evidence: Evidence) -> Choice:
    problems = [(address, _problem(method, family, address, evidence)) for address in _in_order(family, evidence)]
    fit = [address for address, problem in problems if not problem]
    if not fit:
        raise _none(method, family, tuple(_told(evidence, address, problem) for address, problem in problems))
    taken = next((address for address in fit if _spelled(address) == evidence.current), fit[0])
    stays = _spelled(taken) == evidence.current
    other = "fits too, but the node keeps the address that it has" if stays else "fits too, but comes later"
    considered = tuple(
        _told(evidence, address, problem or ("taken" if address is taken else other)) for address, problem in problems
    )
    reason = f"{method} {'still finds' if stays else 'finds'} it on {_link_name(evidence.links, taken)}"
    return Choice(_spelled(taken), reason, considered)


def _none(method: Autodetection, family: int, considered: tuple[str, ...]) -> NoAddress:
    said = "; ".join(considered) or "no link has one"
    variable = "IP" if family == 4 else "IP6"
    remedy = f"set {variable} to an address, or {variable}_AUTODETECTION_METHOD to another method"
    return NoAddress(f"no IPv{family} address for this node by {method} ({said}); {remedy}", considered)


def _told(evidence: Evidence, address: LinkAddress, what: str) -> str:
    return f"{_spelled(address)} on {_link_name(evidence.links, address)}: {what}"


def _in_order(family: int, evidence: Evidence) -> Iterator[LinkAddress]:
    """calico/node's order: the newest link first. On one link, an address that shares its subnet with others before one
    that stands alone (a virtual address, as a rule), then by number."""
    mine = (address for address in evidence.addresses if family_of(address.address) == family)
    alone = 32 if family == 4 else 128

    def rank(address: LinkAddress) -> tuple[int, bool, int]:
        return -address.index, address.prefix_length == alone, int(ipaddress.ip_address(address.address))

    yield from sorted(mine, key=rank)


def _problem(method: Autodetection, family: int, address: LinkAddress, evidence: Evidence) -> str:
    """Why the method doesn't take this address; empty if it does."""
    link = evidence.links.get(address.index)
    if link is None:
        return "its link is not known"
    general = _general_problem(link, address)
    match method.method:
        case "interface":
            return general or _unless(_any(method.arguments, link.name), "the link's name doesn't match")
        case "skip-interface":
            skipped = _any(method.arguments, link.name)
            return general or _excluded(link) or _unless(not skipped, "the link's name is to be skipped")
        case "cidr":
            return general or _unless(_within(method.arguments, address.address), "lies in none of the ranges")
        case "can-reach":
            return _reach_problem(method, address, evidence)
        case "kubernetes-internal-ip":
            ours = [text for text in evidence.internal if family_of(text) == family]
            told = f"the Node's InternalIP is {', '.join(ours)}" if ours else f"the Node has no IPv{family} InternalIP"
            return _unless(address.address in ours, told)
    return general or _excluded(link)


def _general_problem(link: Link, address: LinkAddress) -> str:
    parsed = ipaddress.ip_address(address.address)
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        return "not a global address"
    return "" if link.up else "the link is down"


def _excluded(link: Link) -> str:
    return "a link of that name is never the node's" if _EXCLUDED.match(link.name) else ""


def _reach_problem(method: Autodetection, address: LinkAddress, evidence: Evidence) -> str:
    destination = method.arguments[0]
    if not evidence.source:
        return f"{destination} can't be reached: {evidence.unreachable or 'there is no route'}"
    return _unless(address.address == evidence.source, f"{destination} is reached from {evidence.source}")


def _any(patterns: Iterable[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _within(ranges: Iterable[str], text: str) -> bool:
    address = ipaddress.ip_address(text)
    return any(address in ipaddress.ip_network(cidr, strict=False) for cidr in ranges)


def _unless(fine: bool, problem: str) -> str:
    return "" if fine else problem


def _spelled(address: LinkAddress) -> str:
    return f"{address.address}/{address.prefix_length}"


def _link_name(links: Mapping[int, Link], address: LinkAddress) -> str:
    link = links.get(address.index)
    return link.name if link else f"link {address.index}"
