"""IPPool (projectcalico.org/v3): the ranges that pods, tunnels and load balancers draw addresses from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field, structs

from calipy.resources.cidrs import family_of
from calipy.resources.conditions import CONSTRAINTS, Condition
from calipy.resources.definitions import SELECTOR, Column, Constraint, Definition, Validation, bounded
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.selectors import selector_problems

Use = Literal["Workload", "Tunnel", "LoadBalancer"]
Encapsulation = Literal["Never", "Always", "CrossSubnet"]

_BLOCK_SIZES = {4: range(20, 33), 6: range(116, 129)}
_DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
_FORBIDDEN = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))


class IPPoolSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The range, who may draw from it, and how its addresses are reached from other nodes (Calico's IPPoolSpec)."""

    cidr: str
    """The range: address and prefix length, 10.244.0.0/16 or fd00:10:244::/48. It can't be changed, overlaps no other
    pool and no link-local range, and has room for one block at least."""
    block_size: int = 0
    """The prefix length of blocks: nodes claim the pool's addresses block by block. 20 to 32 for IPv4, 116 to 128 for
    IPv6; it can't be changed. Default, also for 0: 26 for IPv4 (64 addresses), 122 for IPv6 (64)."""
    ipip_mode: Encapsulation = "Never"
    """Whether packets between nodes to the pool's addresses travel inside IP (protocol 4): Always; CrossSubnet, only
    where the nodes are in different subnets; Never. For IPv4 only, and not together with vxlanMode. Default: Never."""
    vxlan_mode: Encapsulation = "Never"
    """Whether packets between nodes to the pool's addresses travel inside VXLAN (UDP, port 4789 unless
    FelixConfiguration says otherwise): Always; CrossSubnet, only where the nodes are in different subnets; Never, where
    the network between nodes can route the pool's blocks. VXLAN needs no BGP, and takes 50 bytes (IPv4) or 70 (IPv6)
    of each packet. Not together with ipipMode. Default: Never."""
    nat_outgoing: bool = False
    """Whether a connection from the pool's addresses to somewhere outside all pools leaves with the node's address
    (masquerading). Needed where the world outside knows no way back to pods. Default: false."""
    disabled: bool = False
    """Whether no new addresses are given out. Addresses that are given out stay, and stay routed. Default: false."""
    disable_bgp_export: bool = field(name="disableBGPExport", default=False)
    """Whether BGP peers are told nothing of the pool's routes. Default: false."""
    node_selector: str = "all()"
    """Which nodes may claim blocks of the pool, by their labels: zone == "a". Default: all()."""
    namespace_selector: str = ""
    """Which namespaces' pods may draw from the pool, by the namespaces' labels. Only with allowedUses [Workload]. Empty
    means all. Default: empty."""
    allowed_uses: tuple[Use, ...] = ("Workload", "Tunnel")
    """What addresses are given out for: Workload, for pods; Tunnel, for the nodes' tunnel devices; LoadBalancer, for
    Services, which stands alone and takes no encapsulation. Default: Workload and Tunnel."""
    assignment_mode: Literal["Automatic", "Manual"] = "Automatic"
    """Automatic: everybody who may, draws from the pool. Manual: only who asks for it by name (annotations
    cni.projectcalico.org/ipv4pools and ipv6pools) or by address. Default: Automatic."""


class IPPoolStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """What a controller has seen of it (Calico's IPPoolStatus)."""

    conditions: tuple[Condition, ...] = ()
    """Allocatable: whether addresses can be drawn from the pool. It is False with reason CIDROverlap, Terminating or
    PoolDisabled."""


class IPPool(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPPool"):
    """A range that pods, tunnels and load balancers draw addresses from."""

    spec: IPPoolSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"
    status: IPPoolStatus | UnsetType = UNSET

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.spec.cidr)

    @property
    def block_size(self) -> int:
        """Prefix length of the pool's blocks, the default applied."""
        return self.spec.block_size or _DEFAULT_BLOCK_SIZE[self.family]

    @property
    def hindrance(self) -> str:
        """Why nothing can be drawn from it; empty if something can."""
        if self.metadata.deletion_timestamp:
            return "is being deleted"
        if self.spec.disabled:
            return "is disabled"
        conditions = () if self.status is UNSET else self.status.conditions
        found = next((c for c in conditions if c.type == "Allocatable" and c.status == "False"), None)
        return f"can't be drawn from: {found.message or found.reason or 'see its conditions'}" if found else ""

    @property
    def allocatable(self) -> bool:
        """False while disabled, being deleted, or judged not allocatable by the pool controller."""
        return not self.hindrance


def judged(pools: Iterable[IPPool]) -> tuple[IPPool, ...]:
    """The pools as Calico's pool controller would have them: of two whose ranges overlap the younger is not
    allocatable, for an address might be given out from both."""
    kept: list[IPPool] = []
    for pool in sorted(pools, key=lambda pool: (pool.metadata.creation_timestamp or "", pool.metadata.name)):
        problem = next(overlap_problems(pool, kept), None)
        if problem is not None:
            reason = f"{problem.value} {problem.reason}"
            overlap = Condition(type="Allocatable", status="False", reason="CIDROverlap", message=reason)
            others = () if pool.status is UNSET else pool.status.conditions
            conditions = (*(c for c in others if c.type != "Allocatable"), overlap)
            pool = structs.replace(pool, status=IPPoolStatus(conditions=conditions))
        kept.append(pool)
    return tuple(sorted(kept, key=lambda pool: pool.metadata.name))


def problems(pool: IPPool) -> Iterator[Problem]:
    """What Calico's validation and CRD rules refuse in one pool (overlap with other pools is not seen here)."""
    try:
        if "/" not in pool.spec.cidr:
            raise ValueError
        network = ipaddress.ip_network(pool.spec.cidr, strict=False)
    except ValueError:
        yield Problem(
            "spec.cidr", pool.spec.cidr, "is not a CIDR", "write an address and a prefix length, 10.244.0.0/16"
        )
        return
    yield from _cidr_problems(pool, network)
    yield from _mode_problems(pool)
    yield from _use_problems(pool)
    yield from _selector_problems(pool)


def _cidr_problems(pool: IPPool, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Iterator[Problem]:
    spec = pool.spec
    if str(network.network_address) != str(ipaddress.ip_address(spec.cidr.partition("/")[0])):
        yield Problem("spec.cidr", spec.cidr, "has bits set behind its prefix", f"write {network}")
    for forbidden in _FORBIDDEN:
        if forbidden.version == network.version and forbidden.overlaps(network):
            yield Problem("spec.cidr", spec.cidr, f"overlaps the link-local range {forbidden}", "choose another range")
    allowed = _BLOCK_SIZES[pool.family]
    if pool.block_size not in allowed:
        limits = f"{allowed.start} to {allowed.stop - 1}"
        yield Problem("spec.blockSize", spec.block_size, f"is not a block's prefix length in IPv{pool.family}", limits)
    elif network.prefixlen > pool.block_size and not spec.disabled:
        reason = f"is smaller than one block (/{pool.block_size})"
        yield Problem("spec.cidr", spec.cidr, reason, "widen the range or raise blockSize")


def _mode_problems(pool: IPPool) -> Iterator[Problem]:
    spec = pool.spec
    if spec.ipip_mode != "Never" and pool.family == 6:
        yield Problem("spec.ipipMode", spec.ipip_mode, "IPIP carries IPv4 only", "use vxlanMode, or Never")
    if spec.ipip_mode != "Never" and spec.vxlan_mode != "Never":
        yield Problem("spec.vxlanMode", spec.vxlan_mode, "can't be combined with ipipMode", "set one of them to Never")


def _use_problems(pool: IPPool) -> Iterator[Problem]:
    spec = pool.spec
    if len(set(spec.allowed_uses)) < len(spec.allowed_uses):
        yield Problem("spec.allowedUses", list(spec.allowed_uses), "names one use twice", "name each once")
    if not spec.allowed_uses:
        yield Problem("spec.allowedUses", [], "is empty", "name Workload, Tunnel or LoadBalancer, or leave it out")
    if "LoadBalancer" in spec.allowed_uses:
        if len(set(spec.allowed_uses)) > 1:
            yield Problem("spec.allowedUses", list(spec.allowed_uses), "LoadBalancer must stand alone", "use two pools")
        if spec.ipip_mode != "Never" or spec.vxlan_mode != "Never":
            yield Problem(
                "spec.allowedUses", ["LoadBalancer"], "takes no encapsulation", "set ipipMode and vxlanMode to Never"
            )
        if spec.disable_bgp_export:
            yield Problem("spec.disableBGPExport", True, "a LoadBalancer pool must be exported", "set it to false")
        if spec.node_selector not in ("", "all()"):
            yield Problem(
                "spec.nodeSelector", spec.node_selector, "a LoadBalancer pool serves all nodes", "write all()"
            )
    if spec.namespace_selector and "Tunnel" in spec.allowed_uses:
        reason = "tunnels have no namespace"
        yield Problem("spec.namespaceSelector", spec.namespace_selector, reason, "set allowedUses to [Workload]")


def _selector_problems(pool: IPPool) -> Iterator[Problem]:
    for name, text in (("nodeSelector", pool.spec.node_selector), ("namespaceSelector", pool.spec.namespace_selector)):
        yield from selector_problems(f"spec.{name}", text)


def changes(old: IPPool, new: IPPool) -> Iterator[Problem]:
    """A pool's range and block size stay: blocks that were claimed in it are cut after them."""
    remedy = "make a new pool, disable this one, and delete it when its addresses are given back"
    before, after = _network(old), _network(new)
    if before is None or after is None:
        return
    if before != after:
        yield Problem("spec.cidr", new.spec.cidr, f"was {old.spec.cidr} and can't change", remedy)
    elif old.block_size != new.block_size:
        yield Problem("spec.blockSize", new.spec.block_size, f"was {old.block_size} and can't change", remedy)


def overlaps(pools: Iterable[IPPool]) -> dict[str, Problem]:
    """Which pools can't be in force because an older one has some of their range: name -> what is wrong. Each pool is
    fit by itself (`problems`). The same set of pools gives the same answer on every node, whoever saw which first."""
    kept: list[IPPool] = []
    found: dict[str, Problem] = {}
    for pool in sorted(pools, key=_age):
        other = next((older for older in kept if _overlap(pool, older)), None)
        if other is None:
            kept.append(pool)
        else:
            reason = f"overlaps {other.spec.cidr} of IPPool/{other.metadata.name}, which is older"
            found[pool.metadata.name] = Problem("spec.cidr", pool.spec.cidr, reason, "choose a range of its own")
    return found


def overlap_problems(new: IPPool, others: Iterable[IPPool]) -> Iterator[Problem]:
    """What Calico refuses when a pool is made: a range that overlaps another pool's, disabled ones included."""
    for other in others:
        if other.metadata.name != new.metadata.name and _overlap(new, other):
            reason = f"overlaps {other.spec.cidr} of IPPool/{other.metadata.name}"
            yield Problem("spec.cidr", new.spec.cidr, reason, "choose a range that no other pool has")


def _age(pool: IPPool) -> tuple[str, str]:
    return pool.metadata.creation_timestamp or "", pool.metadata.name


def _overlap(one: IPPool, other: IPPool) -> bool:
    mine, theirs = _network(one), _network(other)
    return mine is not None and theirs is not None and mine.version == theirs.version and mine.overlaps(theirs)


def _network(pool: IPPool) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Its range however it is written (`FD00::/48` is `fd00:0::/48`), None where that is none."""
    try:
        return ipaddress.ip_network(pool.spec.cidr, strict=False)
    except ValueError:
        return None


_EFFECTIVE = "(has({0}.blockSize) && {0}.blockSize != 0 ? {0}.blockSize : ({0}.cidr.contains(':') ? 122 : 26))"
"""CEL: a pool's block size, the default applied."""
_NEVER = "(!has(self.{0}) || self.{0} == 'Never')"
_LOAD_BALANCER = "(has(self.allowedUses) && 'LoadBalancer' in self.allowedUses)"
_RULES = (
    (
        "blockSize",
        "!has(self.blockSize) || self.blockSize == 0 || (self.cidr.contains(':') ? "
        "self.blockSize >= 116 && self.blockSize <= 128 : self.blockSize >= 20 && self.blockSize <= 32)",
        "is a block's prefix length: 20 to 32 in IPv4, 116 to 128 in IPv6",
    ),
    (
        "blockSize",
        f"{_EFFECTIVE.format('self')} == {_EFFECTIVE.format('oldSelf')}",
        "can't be changed: make a new pool, disable this one, and delete it when its addresses are given back",
    ),
    (
        "cidr",
        f"(has(self.disabled) && self.disabled) || !isCIDR(self.cidr) || "
        f"cidr(self.cidr).prefixLength() <= {_EFFECTIVE.format('self')}",
        "is smaller than one block: widen the range or raise blockSize",
    ),
    ("ipipMode", f"!self.cidr.contains(':') || {_NEVER.format('ipipMode')}", "IPIP carries IPv4 only: use vxlanMode"),
    (
        "vxlanMode",
        f"{_NEVER.format('ipipMode')} || {_NEVER.format('vxlanMode')}",
        "can't be combined with ipipMode: set one of them to Never",
    ),
    (
        "allowedUses",
        f"!{_LOAD_BALANCER} || size(self.allowedUses) == 1",
        "LoadBalancer must stand alone: use two pools",
    ),
    (
        "allowedUses",
        f"!{_LOAD_BALANCER} || ({_NEVER.format('ipipMode')} && {_NEVER.format('vxlanMode')})",
        "LoadBalancer takes no encapsulation: set ipipMode and vxlanMode to Never",
    ),
    (
        "disableBGPExport",
        f"!{_LOAD_BALANCER} || !has(self.disableBGPExport) || !self.disableBGPExport",
        "a LoadBalancer pool must be exported: set it to false",
    ),
    (
        "nodeSelector",
        f"!{_LOAD_BALANCER} || !has(self.nodeSelector) || self.nodeSelector in ['', 'all()']",
        "a LoadBalancer pool serves all nodes: write all()",
    ),
    (
        "namespaceSelector",
        "!has(self.namespaceSelector) || self.namespaceSelector == '' || "
        "(has(self.allowedUses) && !('Tunnel' in self.allowedUses))",
        "tunnels have no namespace: set allowedUses to [Workload]",
    ),
)
"""Field of the spec, rule, message."""
_CIDR_RULES = (
    ("self == oldSelf", "can't be changed: make a new pool, disable this one, and delete it when it is empty"),
    ("!isCIDR(self) || cidr(self) == cidr(self).masked()", "has bits set behind its prefix"),
    *(
        (
            f"!isCIDR(self) || !(cidr('{network}').containsCIDR(self) || cidr(self).containsCIDR('{network}'))",
            f"overlaps the link-local range {network}: choose another range",
        )
        for network in _FORBIDDEN
    ),
)

_DEFINITION = Definition(
    columns=(
        Column(name="CIDR", path=".spec.cidr", description="The range."),
        Column(name="NAT", path=".spec.natOutgoing", type="boolean", description="Masquerading.", wide=True),
        Column(name="IPIPMode", path=".spec.ipipMode", description="When IPIP is used.", wide=True),
        Column(name="VXLANMode", path=".spec.vxlanMode", description="When VXLAN is used.", wide=True),
        Column(name="Disabled", path=".spec.disabled", type="boolean", description="No new addresses.", wide=True),
        Column(name="NodeSelector", path=".spec.nodeSelector", description="Nodes that may draw from it.", wide=True),
        Column(
            name="Allocatable",
            path=".status.conditions[?(@.type=='Allocatable')].status",
            description="Whether addresses can be drawn from it.",
            wide=True,
        ),
    ),
    constraints=(
        Constraint(path="spec.cidr", format="cidr", max_length=48),
        Constraint(path="spec.blockSize", minimum=0, maximum=128),
        Constraint(path="spec.ipipMode", default="Never"),
        Constraint(path="spec.vxlanMode", default="Never"),
        Constraint(path="spec.natOutgoing", default=False),
        Constraint(path="spec.disabled", default=False),
        Constraint(path="spec.nodeSelector", default="all()"),
        Constraint(path="spec.allowedUses", list_type="set", min_items=1, max_items=3, default=("Workload", "Tunnel")),
        Constraint(path="spec.assignmentMode", default="Automatic"),
        *bounded(SELECTOR, "spec.nodeSelector", "spec.namespaceSelector"),
        *CONSTRAINTS,
    ),
    validations=(
        *(Validation(path="spec.cidr", rule=rule, message=message) for rule, message in _CIDR_RULES),
        *(Validation(path="spec", field=f".{name}", rule=rule, message=text) for name, rule, text in _RULES),
    ),
    status=True,
)

KIND = Kind(
    name="IPPool", group="projectcalico.org", version="v3", plural="ippools", type=IPPool, problems=problems,
    changes=changes, short_names=("ipp", "ipps", "ippool", "pool", "pools"), definition=_DEFINITION,
)  # fmt: skip
