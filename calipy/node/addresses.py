"""Which address is this node's (calico.md 7, IP and IP6): given, looked up, or the first that fits. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from calipy.model.links import Link, LinkAddress

_EXCLUDED = re.compile(
    r"^(docker|cbr|dummy|podman|virbr|lxcbr|veth|lo$|br-|cali|tunl|flannel|kube-ipvs|cni|vxlan[.-]|wireguard|nodelocaldns)"
)


class NoAddress(ValueError):
    """No address could be taken; the message says what was asked for and what was considered."""


def choose(setting: str, family: int, links: Mapping[int, Link], addresses: Iterable[LinkAddress]) -> str | None:
    """The node's address of a family with its subnet's prefix length, `10.9.0.11/24`; None for `none`.

    `setting` is IP's or IP6's value: `none`, `autodetect` (first-found), or an address, whose prefix length is the
    link's own where it has none. Raises NoAddress.
    """
    if setting == "none":
        return None
    mine = sorted(address for address in addresses if _family(address.address) == family)
    if setting not in ("autodetect", ""):
        return _given(setting, family, mine)
    considered = []
    for address in mine:
        link = links.get(address.index)
        problem = _problem(link, address)
        if not problem:
            return f"{address.address}/{address.prefix_length}"
        considered.append(f"{address.address} on {link.name if link else address.index}: {problem}")
    found = "; ".join(considered) or "no link has one"
    raise NoAddress(f"no IPv{family} address for this node ({found}); set IP{'' if family == 4 else '6'} to one")


def _given(setting: str, family: int, mine: Iterable[LinkAddress]) -> str:
    name = "IP" if family == 4 else "IP6"
    try:
        interface = ipaddress.ip_interface(setting)
    except ValueError as error:
        raise NoAddress(f"{name} is {setting!r}: {error}; write an address, autodetect or none") from error
    if interface.version != family:
        raise NoAddress(f"{name} is {setting!r}: that is IPv{interface.version}; use the other variable")
    for address in mine:
        if address.address == str(interface.ip):
            return setting if "/" in setting else f"{address.address}/{address.prefix_length}"
    raise NoAddress(f"{name} is {setting!r}: no link of this node has that address; correct it or add the address")


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _problem(link: Link | None, address: LinkAddress) -> str:
    if link is None:
        return "its link is not known"
    if _EXCLUDED.match(link.name):
        return "a link of that name is never the node's"
    if not link.up:
        return "the link is down"
    parsed = ipaddress.ip_address(address.address)
    return "not a global address" if parsed.is_link_local or parsed.is_loopback else ""
