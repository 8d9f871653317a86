"""Calico's Node (projectcalico.org/v3) as the core Node that stores hold, with Calico's annotations.

As with Calico's Kubernetes datastore, what such an object says of BGP and tunnels stands in annotations of the core
Node; addresses and orchRefs are read from the core Node itself. Pure: documents in and out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import msgspec

from calipy.resources import nodes
from calipy.resources.metadata import Problem

_PREFIX = "projectcalico.org/"
_ANNOTATIONS: dict[tuple[str, ...], str] = {
    ("spec", "bgp", "asNumber"): nodes.AS_NUMBER,
    ("spec", "bgp", "ipv4Address"): nodes.IPV4_ADDRESS,
    ("spec", "bgp", "ipv6Address"): nodes.IPV6_ADDRESS,
    ("spec", "bgp", "ipv4IPIPTunnelAddr"): nodes.IPIP_ADDRESS,
    ("spec", "bgp", "routeReflectorClusterID"): nodes.ROUTE_REFLECTOR_CLUSTER_ID,
    ("spec", "ipv4VXLANTunnelAddr"): nodes.VXLAN_ADDRESS,
    ("spec", "ipv6VXLANTunnelAddr"): nodes.VXLAN_V6_ADDRESS,
    ("spec", "vxlanTunnelMACAddr"): nodes.VXLAN_MAC,
    ("spec", "vxlanTunnelMACAddrV6"): nodes.VXLAN_V6_MAC,
    ("spec", "wireguard", "interfaceIPv4Address"): f"{_PREFIX}IPv4WireguardInterfaceAddr",
    ("spec", "wireguard", "interfaceIPv6Address"): f"{_PREFIX}IPv6WireguardInterfaceAddr",
    ("spec", "interfaces"): f"{_PREFIX}Interfaces",
    ("status", "wireguardPublicKey"): f"{_PREFIX}WireguardPublicKey",
    ("status", "wireguardPublicKeyV6"): f"{_PREFIX}WireguardPublicKeyV6",
}
_DERIVED = (("spec", "addresses"), ("spec", "orchRefs"), ("status", "podCIDRs"))
"""Read from the core Node; passed over where they are given."""


def core_node(document: Mapping[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """The core Node's document, and what of Calico's has no place in it."""
    annotations: dict[str, object] = {}
    problems: list[Problem] = []
    for path, value in _leaves(document):
        name = _ANNOTATIONS.get(path)
        if name is None:
            problems.append(_not_known(path, value))
        elif value is not None:
            annotations[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}, problems
    given = metadata.get("annotations") or {}
    merged = {**given, **annotations} if isinstance(given, dict) else given
    return {"apiVersion": "v1", "kind": "Node", "metadata": {**metadata, "annotations": merged}}, problems


def core_patch(patch: Mapping[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """A merge patch (RFC 7386) of Calico's Node as one of the core Node, and what of Calico's has no place in it. What
    Calico keeps in annotations goes there; what the core Node has itself stays where it is."""
    annotations: dict[str, object] = {}
    problems: list[Problem] = []
    rest = dict(patch)
    for top in ("spec", "status"):
        part = patch.get(top)
        if not isinstance(part, dict):
            continue
        calicos = {name for name in part if any(path[:2] == (top, name) for path in _ANNOTATIONS)}
        for name in calicos:
            annotations |= _annotations((top, name), part[name], problems)
        others = {name: value for name, value in part.items() if name not in calicos}
        rest = {**rest, top: others} if others else {name: value for name, value in rest.items() if name != top}
    if not annotations:
        return rest, problems
    metadata = rest.get("metadata")
    given = metadata if isinstance(metadata, dict) else {}
    merged = {**(given.get("annotations") or {}), **annotations}
    return {**rest, "metadata": {**given, "annotations": merged}}, problems


def _annotations(path: tuple[str, ...], value: object, problems: list[Problem]) -> dict[str, object]:
    """What becomes of the annotations for a field and those below it; None removes one."""
    if path in _ANNOTATIONS:
        text = value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
        return {_ANNOTATIONS[path]: text}
    below = {known: name for known, name in _ANNOTATIONS.items() if known[: len(path)] == path}
    if below and value is None:
        return dict.fromkeys(below.values())
    if below and isinstance(value, dict):
        found: dict[str, object] = {}
        for name, member in value.items():
            found |= _annotations((*path, name), member, problems)
        return found
    problems.append(_not_known(path, value))
    return {}


def _not_known(path: tuple[str, ...], value: object) -> Problem:
    return Problem(".".join(path), value, "is no field of Node", "see the Node resource in Calico's reference")


def _leaves(document: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    inner = {path[:length] for path in _ANNOTATIONS for length in range(1, len(path))}

    def walk(path: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
        if path in _DERIVED:
            return
        if path in inner and (value is None or isinstance(value, dict)):
            for name, part in cast(dict[str, object], value or {}).items():
                yield from walk((*path, name), part)
        else:
            yield path, value

    for top in ("spec", "status"):
        yield from walk((top,), document.get(top))
    for name, value in document.items():
        if name not in ("apiVersion", "kind", "metadata", "spec", "status"):
            yield (name,), value
