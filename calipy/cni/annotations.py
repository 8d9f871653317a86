"""Calico's annotations on a Pod, and on its Namespace as defaults: which addresses and which MAC a pod asks for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from calipy.cni.errors import CniError, Code
from calipy.resources import pods

_FAMILIES: Final = {"ipv4": 4, "ipv6": 6}
_MAC: Final = re.compile(r"([0-9a-fA-F]{2})([:-][0-9a-fA-F]{2}){5}")


class Wishes(Struct, frozen=True, gc=False, kw_only=True):
    """What a pod's annotations ask for; empty = nothing said."""

    addresses: tuple[str, ...] = ()
    """ipAddrs: these very addresses, at most one a family, canonical."""
    pools: Mapping[int, tuple[str, ...]] = {}
    """ipv4pools and ipv6pools, names or CIDRs, by family."""
    families: tuple[int, ...] = ()
    """ipFamilies."""
    mac: str = ""
    """hwAddr, lower case with colons."""


def read(pod: Mapping[str, str], namespace: Mapping[str, str]) -> Wishes:
    """The wishes in a pod's annotations; pools and families come from its namespace's where the pod's have none.
    Raises CniError naming annotation, value, reason and remedy."""
    if not (pod or namespace):
        return Wishes()
    defaults = {key: namespace[key] for key in (pods.IPV4_POOLS, pods.IPV6_POOLS, pods.IP_FAMILIES) if key in namespace}
    merged = {**defaults, **pod}
    families = _families(merged)
    wishes = Wishes(
        addresses=_addresses(pod),
        pools={
            family: _list(merged, key)
            for family, key in ((4, pods.IPV4_POOLS), (6, pods.IPV6_POOLS))
            if merged.get(key, "")
        },
        families=families,
        mac=_mac(pod),
    )
    if wishes.addresses and wishes.pools and any(key in pod for key in (pods.IPV4_POOLS, pods.IPV6_POOLS)):
        raise _refusal(
            pods.IP_ADDRESSES, pod[pods.IP_ADDRESSES], "it excludes ipv4pools and ipv6pools", "keep one of them"
        )
    return wishes


def _refusal(annotation: str, value: str, reason: str, remedy: str) -> CniError:
    return CniError(Code.WRONG_ANNOTATION, f"annotation {annotation} is {value!r}: {reason}", remedy)


def _list(annotations: Mapping[str, str], key: str) -> tuple[str, ...]:
    value = annotations.get(key, "")
    if not value:
        return ()
    try:
        entries = msgspec.json.decode(value, type=tuple[str, ...])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise _refusal(key, value, f"not a JSON list of strings ({error})", 'write it as ["...", "..."]') from error
    if not entries:
        raise _refusal(key, value, "the list is empty", "name at least one, or take the annotation away")
    return entries


def _families(annotations: Mapping[str, str]) -> tuple[int, ...]:
    entries = _list(annotations, pods.IP_FAMILIES)
    value = annotations.get(pods.IP_FAMILIES, "")
    for entry in entries:
        if entry.lower() not in _FAMILIES:
            raise _refusal(
                pods.IP_FAMILIES, value, f"there is no family {entry!r}", '"IPv4" and "IPv6" are the families'
            )
    return tuple(sorted({_FAMILIES[entry.lower()] for entry in entries}))


def _addresses(annotations: Mapping[str, str]) -> tuple[str, ...]:
    value = annotations.get(pods.IP_ADDRESSES, "")
    found: dict[int, str] = {}
    for entry in _list(annotations, pods.IP_ADDRESSES):
        try:
            address = ipaddress.ip_address(entry)
        except ValueError as error:
            remedy = 'write addresses without prefix length, as in ["10.0.0.1"]'
            raise _refusal(pods.IP_ADDRESSES, value, f"{entry!r} is no IP address", remedy) from error
        if address.version in found:
            raise _refusal(pods.IP_ADDRESSES, value, f"more than one IPv{address.version} address", "name one a family")
        found[address.version] = str(address)
    return tuple(found[family] for family in sorted(found))


def _mac(annotations: Mapping[str, str]) -> str:
    value = annotations.get(pods.HARDWARE_ADDRESS, "")
    if not value:
        return ""
    if not _MAC.fullmatch(value):
        raise _refusal(pods.HARDWARE_ADDRESS, value, "not a MAC address", "write six bytes as in 02:00:00:00:00:01")
    mac = value.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise _refusal(pods.HARDWARE_ADDRESS, value, "not the address of one host", "clear the first byte's lowest bit")
    return mac
