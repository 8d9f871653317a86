"""IPPool (projectcalico.org/v3): the ranges that pods, tunnels and load balancers draw addresses from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field, structs

from calipy.resources.cidrs import family_of
from calipy.resources.conditions import Condition
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.selectors import selector_problems

Use = Literal["Workload", "Tunnel", "LoadBalancer"]
Encapsulation = Literal["Never", "Always", "CrossSubnet"]

_BLOCK_SIZES = {4: range(20, 33), 6: range(116, 129)}
_DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
_FORBIDDEN = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))


class IPPoolSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico IPPoolSpec. `cidr` and `block_size` can't change once set."""

    cidr: str
    block_size: int = 0
    """Prefix length of the pool's blocks; 0 stands for the default, 26 (IPv4) or 122 (IPv6)."""
    ipip_mode: Encapsulation = "Never"
    vxlan_mode: Encapsulation = "Never"
    nat_outgoing: bool = False
    disabled: bool = False
    """No new addresses; what is given out stays, and stays routed."""
    disable_bgp_export: bool = field(name="disableBGPExport", default=False)
    node_selector: str = "all()"
    namespace_selector: str = ""
    """Which namespaces may draw from the pool, by their own labels; empty = all."""
    allowed_uses: tuple[Use, ...] = ("Workload", "Tunnel")
    assignment_mode: Literal["Automatic", "Manual"] = "Automatic"


class IPPoolStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """`Allocatable` is False with reason CIDROverlap, Terminating or PoolDisabled."""

    conditions: tuple[Condition, ...] = ()


class IPPool(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPPool"):
    """A pool of addresses."""

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


KIND = Kind(
    name="IPPool", group="projectcalico.org", version="v3", plural="ippools", type=IPPool, problems=problems,
    changes=changes, short_names=("ipp", "ipps", "ippool", "pool", "pools"),
)  # fmt: skip
