"""Addresses and CIDRs as they are written in objects. Python's own reader takes more: netmasks and scopes."""

from __future__ import annotations

import ipaddress
import re

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_CIDR = re.compile(r"[0-9A-Fa-f.:]+/[0-9]{1,3}")
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+")


def family_of(text: str) -> int:
    """4 or 6, of an address or a CIDR that is one."""
    return 6 if ":" in text else 4


def network_of(text: str) -> Network:
    """The network of a CIDR, whatever bits are set behind its prefix. Raises ValueError."""
    if not _CIDR.fullmatch(text):
        raise ValueError(f"{text!r} is not a CIDR")
    return ipaddress.ip_network(text, strict=False)


def network_or_address(text: str) -> Network:
    """The network of a CIDR, or that of one address. Raises ValueError."""
    return ipaddress.ip_network(text) if _ADDRESS.fullmatch(text) else network_of(text)


def is_masked(text: str) -> bool:
    """True if a CIDR that can be read has no bits set behind its prefix."""
    return ipaddress.ip_address(text.partition("/")[0]) == network_of(text).network_address
