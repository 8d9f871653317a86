"""Sets that rules refer to: what they are called, what is in them, and what decides who that is."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Literal, NewType

from msgspec import Struct

from calipy.resources.cidrs import family_of

SetId = NewType("SetId", str)
"""Calico's identity of a set: `s:<hash of the canonical selector>`, `n:<hash>` for a named port, `svc:<hash>` and
`svcnoport:<hash>` for a service; a fixed word for the built-in ones; `nets:<hash>` and `ports:<hash>` for lists;
`run:<hash>` for a run of policies."""

SetKind = Literal["addresses", "prefixes", "endpoints", "ports", "askers"]
"""Hash set of whole addresses; interval set of CIDRs; hash set of address, protocol and port (`10.0.0.1,tcp:80`,
Calico's spelling; a protocol without a name is its number); interval set of ports (`80`, `8000-8080`; family 0); hash
map from whole addresses to the policies of a run that ask for them, a bit each (`10.0.0.1 5`: first and third)."""

NETWORK_IP_POOLS = SetId("network-ip-pools")
"""All pools that pods live in: traffic to them is never masqueraded."""
MASQUERADED_IP_POOLS = SetId("masq-ipam-pools")
"""Pools with natOutgoing."""
ALL_HOSTS = SetId("all-hosts-net")
"""Addresses of all nodes, and externalNodesList."""
VXLAN_HOSTS = SetId("all-vxlan-net")
"""Addresses of the nodes that may send VXLAN to this one."""


class SelectorSet(Struct, frozen=True, gc=False):
    """The addresses of workloads, and the CIDRs of network sets, whose labels a selector matches."""

    id: SetId
    selector: str
    """Canonical text."""


class EndpointSet(Struct, frozen=True, gc=False, kw_only=True):
    """Ends of connections: a named port of the workloads that a selector matches, or the endpoints of a service."""

    id: SetId
    selector: str = ""
    """Canonical text; empty for a service."""
    protocol: int = 0
    port: str = ""
    """The name of a container's port, of `protocol`."""
    namespace: str = ""
    service: str = ""
    """A Service of `namespace`."""
    with_ports: bool = True
    """False: addresses alone (`svcnoport:`), as for a service as a source."""


class NetSet(Struct, frozen=True, gc=False):
    """A list of networks, of both families perhaps. One network of a family is matched as it is; more are a set."""

    id: SetId
    nets: tuple[str, ...]
    """Canonical CIDRs, sorted."""

    def of(self, family: int) -> tuple[str, ...]:
        """Those of one family."""
        return tuple(net for net in self.nets if family_of(net) == family)


class PortSet(Struct, frozen=True, gc=False):
    """A list of ranges of ports. One is matched as it is; more are a set."""

    id: SetId
    ranges: tuple[tuple[int, int], ...]
    """First and last of each, merged and sorted."""


def list_id(kind: Literal["nets", "ports"], texts: Sequence[str]) -> SetId:
    """The identity of a list by its content."""
    return _id(kind, "\n".join((kind, *texts)))


def run_id(tier: str, direction: str, policies: Sequence[str]) -> SetId:
    """The identity of a run of policies by what it is made of."""
    return _id("run", "\n".join((tier, direction, *policies)))


def named_port_id(selector: SetId, protocol: int, port: str) -> SetId:
    """Calico's identity of a named port's set; `selector` is that of the selector's own set."""
    return _id("n", f"n:{selector},{protocol_name(protocol)},{port}")


def service_id(namespace: str, service: str, *, with_ports: bool) -> SetId:
    """Calico's identity of the set of a service's endpoints."""
    kind = "svc" if with_ports else "svcnoport"
    return _id(kind, f"{kind}:{namespace}/{service}")


def net_member(net: str) -> str:
    """A canonical CIDR as a member of a set: a whole address goes without its prefix length."""
    return net.removesuffix("/128" if ":" in net else "/32")


def endpoint_member(address: str, protocol: int, port: int) -> str:
    """A member of a set of kind `endpoints`."""
    return f"{address},{protocol_name(protocol)}:{port}"


def asker_member(address: str, mask: int) -> str:
    """A member of a map of kind `askers`."""
    return f"{address} {mask}"


def protocol_name(protocol: int) -> str:
    """Calico's word for a protocol with ports; the number of any other."""
    return _PROTOCOLS.get(protocol, str(protocol))


_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


def _id(kind: str, content: str) -> SetId:
    digest = hashlib.sha224(content.encode()).digest()
    return SetId(f"{kind}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}")
