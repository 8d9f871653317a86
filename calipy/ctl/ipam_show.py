"""`ipam show`: pools and blocks in numbers, borrowed addresses, the configuration, one address. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from msgspec import Struct

from calipy.console.tables import Column
from calipy.ipam.judge.values import Allocation, Snapshot, Verdict
from calipy.resources.ipam_blocks import AllocationAttribute, IPAMBlock
from calipy.resources.ipam_configurations import IPAMConfiguration


class Usage(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A pool or a block in numbers of addresses. As calicoctl counts: those that cool down are in use; one that was
    given out before it was reserved is in use and reserved."""

    grouping: str
    """`IP Pool` or `Block`."""
    cidr: str
    total: int
    in_use: int
    reserved: int
    free: int
    cooling: int


def usages(snapshot: Snapshot, verdict: Verdict, *, blocks: bool) -> tuple[Usage, ...]:
    """Each pool, with `blocks` followed by its blocks; then the blocks that lie in no pool."""
    found: list[Usage] = []
    for pool in verdict.pools:
        in_use = pool.allocated + pool.cooling
        found.append(
            Usage(
                grouping="IP Pool", cidr=pool.cidr, total=pool.size, in_use=in_use, reserved=pool.reserved,
                free=pool.free, cooling=pool.cooling,
            )
        )  # fmt: skip
        found += _blocks_of(snapshot, verdict, pool.name) if blocks else ()
    found += _blocks_of(snapshot, verdict, "") if blocks else ()
    return tuple(found)


def _blocks_of(snapshot: Snapshot, verdict: Verdict, pool: str) -> Iterator[Usage]:
    objects = {block.spec.cidr: block for block in snapshot.blocks}
    for block in verdict.blocks:
        if block.pool == pool:
            reserved, taken = _reserved(snapshot, objects[block.cidr])
            in_use = block.allocated + block.cooling
            yield Usage(
                grouping="Block", cidr=block.cidr, total=block.size, in_use=in_use, reserved=reserved,
                free=block.free - (reserved - taken), cooling=block.cooling,
            )  # fmt: skip


def _reserved(snapshot: Snapshot, block: IPAMBlock) -> tuple[int, int]:
    """How many addresses of a block are reserved, and how many of those are in use besides."""
    ranges = [
        ipaddress.ip_network(text, strict=False)
        for reservation in snapshot.reservations
        for text in reservation.spec.reserved_cidrs
    ]
    network = ipaddress.ip_network(block.spec.cidr)
    near = [other for other in ranges if other.version == network.version and network.overlaps(other)]
    if not near:
        return 0, 0
    covered = [any(address in other for other in near) for address in network]
    taken = sum(held and index is not None for held, index in zip(covered, block.spec.allocations, strict=True))
    return sum(covered), taken


def _number(count: int) -> str:
    return f"{float(count):.5g}"


def _share(name: str) -> Column[Usage]:
    def cell(usage: Usage) -> str:
        count: int = getattr(usage, name)
        return f"{_number(count)} ({100 * count / usage.total:.0f}%)"

    return Column(f"IPS {name.replace('_', ' ').upper()}", cell)


USAGE_COLUMNS: Sequence[Column[Usage]] = (
    Column("GROUPING", lambda usage: usage.grouping),
    Column("CIDR", lambda usage: usage.cidr),
    Column("IPS TOTAL", lambda usage: _number(usage.total)),
    _share("in_use"),
    _share("reserved"),
    _share("free"),
    _share("cooling"),
)


class Borrowed(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """An address in use on another node than the owner of its block."""

    ip: str
    borrowing_node: str
    block: str
    block_owner: str
    type: str
    allocated_to: str


def borrowed(verdict: Verdict) -> tuple[Borrowed, ...]:
    """All of them."""
    owners = {block.cidr: block.owner for block in verdict.blocks}
    return tuple(
        Borrowed(
            ip=allocation.address, borrowing_node=allocation.node, block=allocation.block,
            block_owner=owners.get(allocation.block, ""), type=allocation.type or ("pod" if allocation.pod else ""),
            allocated_to=f"{allocation.namespace}/{allocation.pod}" if allocation.pod else "",
        )
        for allocation in verdict.allocations
        if allocation.borrowed
    )  # fmt: skip


BORROWED_COLUMNS: Sequence[Column[Borrowed]] = (
    Column("IP", lambda row: row.ip),
    Column("BORROWING-NODE", lambda row: row.borrowing_node),
    Column("BLOCK", lambda row: row.block),
    Column("BLOCK OWNER", lambda row: row.block_owner),
    Column("TYPE", lambda row: row.type),
    Column("ALLOCATED-TO", lambda row: row.allocated_to),
)


def properties(configuration: IPAMConfiguration) -> dict[str, object]:
    """The configuration in force, by Calico's names."""
    spec = configuration.spec
    return {
        "StrictAffinity": spec.strict_affinity,
        "AutoAllocateBlocks": spec.auto_allocate_blocks,
        "MaxBlocksPerHost": spec.max_blocks_per_host,
        "IPCooldownSeconds": spec.ip_cooldown_seconds,
        "KubeVirtVMAddressPersistence": spec.kube_virt_vm_address_persistence or "Enabled",
    }


class Address(Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=True):
    """What is known of one address."""

    ip: str
    in_use: bool
    cooling_since: str = ""
    """When it was released; it is not given out again before it has cooled down."""
    handle_id: str = ""
    active_owner_attributes: dict[str, str] = {}
    alternate_owner_attributes: dict[str, str] = {}
    block: str = ""
    standing: str = ""
    reason: str = ""


def address(ip: str, attribute: AllocationAttribute | None, allocation: Allocation | None) -> Address:
    """One address: its attribute in its block, and how the judge found its allocation."""
    if attribute is None or attribute.released_at is not None:
        since = attribute.released_at if attribute else None
        return Address(ip=ip, in_use=False, cooling_since=since or "")
    return Address(
        ip=ip,
        in_use=True,
        handle_id=attribute.handle_id or "",
        active_owner_attributes=attribute.secondary,
        alternate_owner_attributes=attribute.alternate_owner_attrs,
        block=allocation.block if allocation else "",
        standing=allocation.standing if allocation else "",
        reason=allocation.reason if allocation else "",
    )


def address_lines(found: Address) -> Iterator[str]:
    """In calicoctl's words, and one more line where the holder doesn't seem to use it."""
    if found.cooling_since:
        yield f"{found.ip} is not assigned; it cools down since {found.cooling_since}"
        return
    if not found.in_use:
        yield f"{found.ip} is not assigned"
        return
    yield f"IP {found.ip} is in use"
    yield f"Handle ID: {found.handle_id or '<none>'}"
    yield from _attribute_lines("Active Owner Attributes", found.active_owner_attributes)
    if found.alternate_owner_attributes:
        yield from _attribute_lines("Alternate Owner Attributes", found.alternate_owner_attributes)
    if found.reason:
        yield f"Standing: {found.standing}: {found.reason}"


def _attribute_lines(title: str, attributes: dict[str, str]) -> Iterator[str]:
    if not attributes:
        yield f"No {title} defined"
        return
    yield f"{title}:"
    yield from (f"  {name}: {attributes[name]}" for name in sorted(attributes))
