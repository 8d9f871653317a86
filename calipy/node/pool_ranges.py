"""Which range a default pool gets where none is given, so that kube-proxy's clusterCIDR covers it. Pure.

clusterCIDR itself can't be read: it is a flag, or in a file of kube-proxy's. Its traces are looked at in turn:

    kubeadm     podSubnet of ClusterConfiguration, in ConfigMap kube-system/kubeadm-config: it is clusterCIDR
    podCIDRs    of the Nodes: each is a part of clusterCIDR, and so is the smallest range that has them all
    Calico's    192.168.0.0/16, or one of 172.16.0.0/16 to 172.31.0.0/16 where a node has an address in it; IPv4 only
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network

from msgspec import Struct

from calipy.resources.cidrs import family_of

Network = IPv4Network | IPv6Network
FALLBACK = {4: "192.168.0.0/16", 6: "fd00::/48"}
"""By family; IPv6's stands for any where a pool's other settings are judged, and is never taken."""
_NEXT = tuple(f"172.{second}.0.0/16" for second in range(16, 32))


class Traces(Struct, frozen=True, gc=False, kw_only=True):
    """What is known of the cluster."""

    pod_subnet: str = ""
    """kubeadm's, `10.244.0.0/16,fd00:10:244::/56`."""
    pod_cidrs: Mapping[str, tuple[str, ...]] = {}
    """By Node."""
    hosts: tuple[str, ...] = ()
    """Addresses of nodes."""
    service: str = ""
    """The address of the Service default/kubernetes."""


class Range(Struct, frozen=True, gc=False, kw_only=True):
    """What came of it."""

    cidr: str = ""
    """Empty = there shall be no pool."""
    source: str = ""
    """Where it is from, for people."""
    doubts: tuple[str, ...] = ()
    """What else was considered, and why it was not taken."""


class _Trace(Struct, frozen=True, gc=False):
    network: Network
    source: str
    widest: int = 0
    """Its prefix is no shorter than that, or it can't be one range."""


def find(family: int, block_size: int, traces: Traces) -> Range:
    """The range of a family's default pool."""
    doubts: list[str] = []
    found = [*_kubeadm(traces, doubts), *_pod_cidrs(traces)]
    mine = [trace for trace in found if trace.network.version == family]
    if found and not mine:
        return Range(doubts=tuple(doubts))  # the cluster is the other family's alone
    if family == 4:
        mine += [_Trace(ipaddress.ip_network(cidr), "Calico's default") for cidr in (FALLBACK[4], *_NEXT)]
    for trace in mine:
        problem = _problem(trace, block_size, traces)
        if not problem:
            return Range(cidr=str(trace.network), source=trace.source, doubts=tuple(doubts))
        doubts.append(f"{trace.network}, {trace.source}: {problem}")
    return Range(doubts=tuple(doubts))


def _kubeadm(traces: Traces, doubts: list[str]) -> Iterator[_Trace]:
    source = "podSubnet of ConfigMap/kube-system/kubeadm-config"
    for text in filter(None, map(str.strip, traces.pod_subnet.split(","))):
        network = _network(text)
        if network is None:
            doubts.append(f"{text!r}, {source}: that is no CIDR")
        else:
            yield _Trace(network, source)


def _pod_cidrs(traces: Traces) -> Iterator[_Trace]:
    """What covers them, by family."""
    found = sorted((cidr, node) for node, cidrs in traces.pod_cidrs.items() for cidr in cidrs)
    for family in (4, 6):
        parts = [(network, node) for cidr, node in found if (network := _network(cidr)) and network.version == family]
        if parts:
            shown = ", ".join(f"{network} of {node}" for network, node in parts[:_SHOWN])
            more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
            source = f"the smallest range with the podCIDRs of all Nodes ({shown}{more})"
            longest = max(network.prefixlen for network, _ in parts)
            yield _Trace(_cover([network for network, _ in parts]), source, longest - _MOST_BITS)


_SHOWN = 3
_MOST_BITS = 16
"""kube-controller-manager makes no more than 2^16 podCIDRs of a clusterCIDR (k8s.io/component-helpers, cidrset)."""


def _problem(trace: _Trace, block_size: int, traces: Traces) -> str:
    """Why pods can't have that range."""
    network = trace.network
    if network.prefixlen > block_size:
        return f"it has no room for one block of /{block_size}"
    if network.prefixlen < trace.widest:
        return "no one clusterCIDR is so wide"
    if inside := _in(network, traces.hosts):
        return f"a node has an address in it, {inside}"
    inside = _in(network, (traces.service,))
    return f"the Service default/kubernetes has an address in it, {inside}" if inside else ""


def _cover(networks: list[Network]) -> Network:
    """The smallest network that has all of these, which are of one family."""
    cover = networks[0]
    while not all(_within(network, cover) for network in networks):
        cover = cover.supernet()
    return cover


def _within(part: Network, whole: Network) -> bool:
    return part.version == whole.version and part.subnet_of(whole)  # type: ignore[arg-type]  # one family


def _in(network: Network, addresses: Iterable[str]) -> str:
    """One of the addresses that is in the network; empty if there is none."""
    mine = (address for address in addresses if address and family_of(address) == network.version)
    return next((address for address in mine if ipaddress.ip_address(address) in network), "")


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
