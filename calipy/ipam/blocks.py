"""IPAMBlock as a value: addresses given out from the head of the free list, cooled down, and freed to its tail. Pure.

Every function that changes a block returns the new one; each update raises the sequence number by one.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from msgspec import Raw, Struct, structs

from calipy.ipam.errors import AlreadyAssigned, Mismatch
from calipy.resources.ipam_blocks import AllocationAttribute, IPAMBlock, IPAMBlockSpec, name_of
from calipy.resources.metadata import ObjectMeta


class Holding(Struct, frozen=True, gc=False, kw_only=True):
    """One address that somebody holds."""

    address: str
    ordinal: int
    handle: str | None
    attributes: Mapping[str, str]
    sequence: int
    """The block's sequence number when it was given out."""


def new_block(cidr: str, affinity: str | None, now_s: float) -> IPAMBlock:
    """An empty block, its sequence number seeded with the time in nanoseconds."""
    size = ipaddress.ip_network(cidr).num_addresses
    spec = IPAMBlockSpec(
        cidr=cidr,
        affinity=affinity,
        affinity_claim_time=rfc3339(now_s) if affinity else None,
        allocations=(None,) * size,
        unallocated=tuple(range(size)),
        attributes=(),
        sequence_number=int(now_s * 1e9),
    )
    return IPAMBlock(metadata=ObjectMeta(name=name_of(cidr)), spec=spec)


def rfc3339(seconds: float) -> str:
    """A Unix time as Kubernetes writes it, to the second."""
    moment = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def go_time(seconds: float) -> str:
    """A Unix time as Go prints it, UTC: the form of the attribute `timestamp`."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def address_at(block: IPAMBlock, ordinal: int) -> str:
    """The address of an ordinal."""
    return str(ipaddress.ip_network(block.spec.cidr)[ordinal])


def ordinal_of(block: IPAMBlock, address: str) -> int:
    """The ordinal of an address of the block."""
    return int(ipaddress.ip_address(address)) - int(ipaddress.ip_network(block.spec.cidr).network_address)


def allocate(
    block: IPAMBlock, count: int, handle: str | None, attributes: Mapping[str, str], reserved: Callable[[str], bool]
) -> tuple[IPAMBlock, tuple[str, ...]]:
    """Gives out up to `count` addresses from the head of the free list, passing over reserved ones, which keep their
    place. The block itself where it gives none."""
    taken: list[int] = []
    for ordinal in block.spec.unallocated:
        if len(taken) == count:
            break
        if not reserved(address_at(block, ordinal)):
            taken.append(ordinal)
    if not taken:
        return block, ()
    return _give(block, taken, handle, attributes), tuple(address_at(block, ordinal) for ordinal in taken)


def allocate_address(block: IPAMBlock, address: str, handle: str | None, attributes: Mapping[str, str]) -> IPAMBlock:
    """Gives out one certain address. Raises AlreadyAssigned where it isn't free, or cools down."""
    ordinal = ordinal_of(block, address)
    if ordinal not in block.spec.unallocated:
        index = block.spec.allocations[ordinal]
        holder = _attribute(block, index).handle_id if index is not None else None
        said = f"held by handle {holder!r}" if holder else "cooling down after its release"
        raise AlreadyAssigned(f"address {address} is {said}; ask for another one, or release it first")
    return _give(block, [ordinal], handle, attributes)


def _give(block: IPAMBlock, ordinals: list[int], handle: str | None, attributes: Mapping[str, str]) -> IPAMBlock:
    spec = block.spec
    sequence = spec.sequence_number + 1
    wanted = AllocationAttribute(handle_id=handle, secondary=dict(attributes))
    known, index = _with_attribute(spec.attributes, wanted)
    allocations = list(spec.allocations)
    for ordinal in ordinals:
        allocations[ordinal] = index
    gone = set(ordinals)
    return _replaced(
        block,
        allocations=tuple(allocations),
        unallocated=tuple(ordinal for ordinal in spec.unallocated if ordinal not in gone),
        attributes=known,
        sequence_number=sequence,
        sequence_number_for_allocation={
            **spec.sequence_number_for_allocation,
            **{str(ordinal): sequence for ordinal in ordinals},
        },
    )


def holdings(block: IPAMBlock) -> Iterator[Holding]:
    """The addresses that are held; those that cool down are nobody's."""
    attributes = [_decode(raw) for raw in block.spec.attributes]
    for ordinal, index in enumerate(block.spec.allocations):
        if index is None or attributes[index].released_at is not None:
            continue
        yield Holding(
            address=address_at(block, ordinal),
            ordinal=ordinal,
            handle=handle_of(attributes[index]),
            attributes=attributes[index].secondary,
            sequence=block.spec.sequence_number_for_allocation.get(str(ordinal), 0),
        )


def handle_of(attribute: AllocationAttribute) -> str | None:
    """The handle of an entry; a carriage return and what an old migration left behind it don't count."""
    return attribute.handle_id.partition("\r")[0] if attribute.handle_id is not None else None


def is_empty(block: IPAMBlock) -> bool:
    """True if no address is held or cools down."""
    return all(index is None for index in block.spec.allocations)


def held(block: IPAMBlock) -> bool:
    """True if anybody holds an address of it."""
    return any(True for _ in holdings(block))


def release(block: IPAMBlock, ordinals: Iterable[int], now_s: float, cooldown_s: int) -> IPAMBlock:
    """Takes addresses back: they cool down, then are freed to the tail. Those not held are passed over."""
    spec = block.spec
    live = {holding.ordinal for holding in holdings(block)}
    returned = [ordinal for ordinal in ordinals if ordinal in live]
    if not returned:
        return block
    sequence = spec.sequence_number + 1
    known, index = _with_attribute(spec.attributes, AllocationAttribute(released_at=rfc3339(now_s)))
    allocations = list(spec.allocations)
    for ordinal in returned:
        allocations[ordinal] = index
    cooling = _replaced(
        block,
        allocations=tuple(allocations),
        attributes=known,
        sequence_number=sequence,
        sequence_number_for_allocation={
            **spec.sequence_number_for_allocation,
            **{str(ordinal): sequence for ordinal in returned},
        },
    )
    return normalised(cooling, now_s, cooldown_s)


def release_address(
    block: IPAMBlock, address: str, now_s: float, cooldown_s: int, handle: str | None, sequence: int | None
) -> IPAMBlock:
    """Takes one address back, if its handle and sequence number are those given. Raises Mismatch otherwise."""
    ordinal = ordinal_of(block, address)
    for holding in holdings(block):
        if holding.ordinal != ordinal:
            continue
        if handle is not None and holding.handle != handle:
            raise Mismatch(f"address {address} is held by handle {holding.handle!r}, not {handle!r}; read it again")
        if sequence is not None and holding.sequence != sequence:
            raise Mismatch(f"address {address} was given out anew since it was looked at; read it again")
    return release(block, [ordinal], now_s, cooldown_s)


def normalised(block: IPAMBlock, now_s: float, cooldown_s: int) -> IPAMBlock:
    """Frees what has cooled down, drops attributes that nobody points at and renumbers the rest. The sequence number
    stays: it goes with the update that this is part of."""
    spec = block.spec
    attributes = [_decode(raw) for raw in spec.attributes]
    allocations = list(spec.allocations)
    stamps = dict(spec.sequence_number_for_allocation)
    freed = []
    for ordinal, index in enumerate(allocations):
        if index is not None and _cooled(attributes[index], now_s, cooldown_s):
            allocations[ordinal] = None
            stamps.pop(str(ordinal), None)
            freed.append(ordinal)
    freed.sort(key=lambda ordinal: spec.sequence_number_for_allocation.get(str(ordinal), 0))
    used = sorted({index for index in allocations if index is not None})
    renumbered = {old: new for new, old in enumerate(used)}
    return _replaced(
        block,
        allocations=tuple(None if index is None else renumbered[index] for index in allocations),
        unallocated=(*spec.unallocated, *freed),
        attributes=tuple(spec.attributes[index] for index in used),
        sequence_number_for_allocation=stamps,
    )


def without_affinity(block: IPAMBlock) -> IPAMBlock:
    """The block as nobody's, its addresses untouched."""
    return _replaced(block, affinity=None, affinity_claim_time=None, sequence_number=block.spec.sequence_number + 1)


def touched(block: IPAMBlock) -> IPAMBlock:
    """The block with a new sequence number: who read it before will meet a conflict."""
    return _replaced(block, sequence_number=block.spec.sequence_number + 1)


def _cooled(attribute: AllocationAttribute, now_s: float, cooldown_s: int) -> bool:
    if attribute.released_at is None:
        return False
    if cooldown_s == 0:
        return True
    released = datetime.datetime.fromisoformat(attribute.released_at.replace("Z", "+00:00"))
    return now_s - released.timestamp() >= cooldown_s


def _with_attribute(known: tuple[Raw, ...], wanted: AllocationAttribute) -> tuple[tuple[Raw, ...], int]:
    """The attributes with `wanted` among them, and its index: equal entries are one."""
    for index, raw in enumerate(known):
        if _decode(raw) == wanted and len(msgspec.json.decode(raw)) == len(msgspec.to_builtins(wanted)):
            return known, index
    return (*known, Raw(msgspec.json.encode(wanted))), len(known)


def _attribute(block: IPAMBlock, index: int) -> AllocationAttribute:
    return _decode(block.spec.attributes[index])


def _decode(raw: Raw) -> AllocationAttribute:
    return msgspec.json.decode(raw, type=AllocationAttribute)


def _replaced(block: IPAMBlock, **fields: object) -> IPAMBlock:
    return structs.replace(block, spec=structs.replace(block.spec, **fields))
