"""IPAMBlock as a value: addresses given out from the head of the free list, cooled down, and freed to its tail. Pure.

Every function that changes a block returns a new one, and the block itself where there is nothing to change. They
presume a block that `ipam_blocks.problems` finds nothing wrong with. The sequence number goes up once a write, whatever
the write is made of: `numbered` is the writer's last step; an allocation is stamped with the number before.
"""

from __future__ import annotations

import datetime
import ipaddress
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec
from msgspec import Raw, Struct, structs

from calipy.ipam.errors import AlreadyAssigned, Mismatch
from calipy.resources.ipam_blocks import AllocationAttribute, IPAMBlock, IPAMBlockSpec, name_of
from calipy.resources.metadata import ObjectMeta

_ESCAPED = frozenset('"\\<>&')
"""What a JSON encoder, Go's as well, may write in another way. Control characters aren't looked for in a handle."""
_RELEASED = b'"releasedAt"'
"""No JSON encoder writes plain letters in another way."""
SYSTEM_HANDLE = "windows-reserved-ipam-handle"
"""Addresses that Windows nodes set aside in each block: they don't make it used."""


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
    _, size = _range(cidr)
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


def from_rfc3339(text: str) -> float:
    """The Unix time of an RFC 3339 text."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def go_time(seconds: float) -> str:
    """A Unix time as Go prints it, UTC: the form of the attribute `timestamp`."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def address_at(block: IPAMBlock, ordinal: int) -> str:
    """The address of an ordinal."""
    base, _ = _range(block.spec.cidr)
    make = ipaddress.IPv6Address if ":" in block.spec.cidr else ipaddress.IPv4Address
    return str(make(base + ordinal))


def ordinal_of(block: IPAMBlock, address: str) -> int:
    """The ordinal of an address of the block."""
    return int(ipaddress.ip_address(address)) - _range(block.spec.cidr)[0]


# --- giving out ---


def free(block: IPAMBlock, reserved: Callable[[str], bool] | None = None) -> Iterator[int]:
    """The ordinals to give out next, in their order; those reserved are left out. One that the list calls free though
    it is held is passed over: a list that somebody broke must not give an address out twice."""
    allocations = block.spec.allocations
    for ordinal in block.spec.unallocated:
        usable = 0 <= ordinal < len(allocations) and allocations[ordinal] is None
        if usable and not (reserved and reserved(address_at(block, ordinal))):
            yield ordinal


def has_room(block: IPAMBlock, reserved: Callable[[str], bool] | None = None) -> bool:
    """True if there is anything to give out."""
    return next(free(block, reserved), None) is not None


def allocate(
    block: IPAMBlock,
    count: int,
    handle: str | None,
    attributes: Mapping[str, str],
    reserved: Callable[[str], bool] | None = None,
) -> tuple[IPAMBlock, tuple[str, ...]]:
    """Gives out up to `count` addresses from the head of the free list, passing over reserved ones, which keep their
    place. The block itself where it gives none."""
    taken = [ordinal for ordinal, _ in zip(free(block, reserved), range(count), strict=False)]
    if not taken:
        return block, ()
    return _give(block, taken, handle, attributes), tuple(address_at(block, ordinal) for ordinal in taken)


def allocate_address(block: IPAMBlock, address: str, handle: str | None, attributes: Mapping[str, str]) -> IPAMBlock:
    """Gives out one certain address. Raises AlreadyAssigned where it isn't free, or cools down."""
    ordinal = ordinal_of(block, address)
    index = block.spec.allocations[ordinal]
    if index is not None:
        holder = decoded(block.spec.attributes[index])
        said = "cooling down after its release" if holder.released_at else f"held by handle {holder.handle_id!r}"
        raise AlreadyAssigned(f"address {address} is {said}; ask for another one, or release it first")
    return _give(block, [ordinal], handle, attributes)


def _give(block: IPAMBlock, ordinals: list[int], handle: str | None, attributes: Mapping[str, str]) -> IPAMBlock:
    spec = block.spec
    wanted = AllocationAttribute(handle_id=handle, secondary=dict(attributes))
    known, index = _with_attribute(spec.attributes, wanted)
    gone = set(ordinals)
    return _replaced(
        block,
        allocations=_pointed(spec.allocations, ordinals, index),
        unallocated=tuple([ordinal for ordinal in spec.unallocated if ordinal not in gone]),
        attributes=known,
        sequence_number_for_allocation=_stamped(spec, ordinals),
    )


# --- looking ---


def holdings(block: IPAMBlock, handle: str | None = None) -> Iterator[Holding]:
    """The addresses that are held, or those of one handle; those that cool down are nobody's."""
    wanted = {
        index: attribute
        for index, attribute in _entries(block.spec.attributes, handle)
        if attribute.released_at is None and handle in (None, handle_of(attribute))
    }
    for ordinal, index in enumerate(block.spec.allocations if wanted else ()):
        if index in wanted:
            yield _holding(block, ordinal, wanted[index])


def holding_at(block: IPAMBlock, ordinal: int) -> Holding | None:
    """Who holds an ordinal; None where nobody does."""
    if not _is_held(block.spec, ordinal):
        return None
    index = block.spec.allocations[ordinal]
    assert index is not None
    return _holding(block, ordinal, decoded(block.spec.attributes[index]))


def _holding(block: IPAMBlock, ordinal: int, attribute: AllocationAttribute) -> Holding:
    return Holding(
        address=address_at(block, ordinal),
        ordinal=ordinal,
        handle=handle_of(attribute),
        attributes=attribute.secondary,
        sequence=block.spec.sequence_number_for_allocation.get(str(ordinal), 0),
    )


def _is_held(spec: IPAMBlockSpec, ordinal: int) -> bool:
    index = spec.allocations[ordinal]
    return index is not None and decoded(spec.attributes[index]).released_at is None


def _entries(attributes: tuple[Raw, ...], handle: str | None) -> Iterator[tuple[int, AllocationAttribute]]:
    """Entries with their index; with a handle, those that may be its. To look for its text is a tenth of decoding, and
    in all of them at once a tenth of that."""
    needle = handle.encode() if handle is not None and handle.isascii() and not _ESCAPED.intersection(handle) else b""
    if needle not in b"".join(attributes):
        return
    for index, raw in enumerate(attributes):
        if needle in (text := bytes(raw)):
            yield index, _decoded(text)


def handle_of(attribute: AllocationAttribute) -> str | None:
    """The handle of an entry; a carriage return and what an old migration left behind it don't count."""
    return attribute.handle_id.partition("\r")[0] if attribute.handle_id is not None else None


def is_empty(block: IPAMBlock) -> bool:
    """True if no address is held or cools down; what Windows set aside doesn't count."""
    return all(
        (decoded(block.spec.attributes[index]).handle_id or "").lower() == SYSTEM_HANDLE
        for index in block.spec.allocations
        if index is not None
    )


# --- taking back ---


def release(block: IPAMBlock, ordinals: Iterable[int], now_s: float, cooldown_s: int) -> IPAMBlock:
    """Takes addresses back: they cool down, then are freed to the tail. Those not held are passed over."""
    spec = block.spec
    returned = [ordinal for ordinal in ordinals if _is_held(spec, ordinal)]
    if not returned:
        return block
    # Rounded up: the second that the format cuts off must not shorten the time that the address rests.
    known, index = _with_attribute(spec.attributes, AllocationAttribute(released_at=rfc3339(math.ceil(now_s))))
    cooling = _replaced(
        block,
        allocations=_pointed(spec.allocations, returned, index),
        attributes=known,
        sequence_number_for_allocation=_stamped(spec, returned),
    )
    return normalised(cooling, now_s, cooldown_s)


def release_address(
    block: IPAMBlock, address: str, now_s: float, cooldown_s: int, handle: str | None, sequence: int | None
) -> IPAMBlock:
    """Takes one address back, if its handle and sequence number are those given. Raises Mismatch otherwise."""
    ordinal = ordinal_of(block, address)
    found = holding_at(block, ordinal)
    if found is None:
        return block
    if handle is not None and found.handle != handle:
        raise Mismatch(f"address {address} is held by handle {found.handle!r}, not {handle!r}; read it again")
    if sequence is not None and found.sequence != sequence:
        raise Mismatch(f"address {address} was given out anew since it was looked at; read it again")
    return release(block, [ordinal], now_s, cooldown_s)


def any_cooling(block: IPAMBlock) -> bool:
    """True if any address was released and isn't free yet."""
    return bool(_released(block.spec))


def normalised(block: IPAMBlock, now_s: float, cooldown_s: int) -> IPAMBlock:
    """Frees what has cooled down, drops attributes that nobody points at and renumbers the rest."""
    spec = block.spec
    cooled = {index for index, at in _released(spec).items() if _has_cooled(at, now_s, cooldown_s)}
    used = sorted({index for index in set(spec.allocations) if index is not None} - cooled)
    if len(used) == len(spec.attributes):
        return block
    freed = [ordinal for ordinal, index in enumerate(spec.allocations) if index in cooled]
    stamps = dict(spec.sequence_number_for_allocation)
    freed.sort(key=lambda ordinal: stamps.get(str(ordinal), 0))
    for ordinal in freed:
        stamps.pop(str(ordinal), None)
    renumbered = {old: new for new, old in enumerate(used)}
    return _replaced(
        block,
        allocations=tuple(None if index is None else renumbered.get(index) for index in spec.allocations),
        unallocated=(*spec.unallocated, *freed),
        attributes=tuple(spec.attributes[index] for index in used),
        sequence_number_for_allocation=stamps,
    )


# --- owners, and writing ---


def without_affinity(block: IPAMBlock) -> IPAMBlock:
    """The block as nobody's, its addresses untouched."""
    return _replaced(block, affinity=None, affinity_claim_time=None)


def touched(block: IPAMBlock) -> IPAMBlock:
    """The same once more: written, it makes a conflict for everybody who has read the block before."""
    return _replaced(block)


def numbered(block: IPAMBlock) -> IPAMBlock:
    """The block as it is written: its sequence number is one higher."""
    return _replaced(block, sequence_number=block.spec.sequence_number + 1)


def _released(spec: IPAMBlockSpec) -> dict[int, str]:
    """Entries that stand for addresses that cool down -> when those were released."""
    if _RELEASED not in b"".join(spec.attributes):
        return {}
    entries = ((index, decoded(raw).released_at) for index, raw in enumerate(spec.attributes))
    return {index: at for index, at in entries if at is not None}


def _has_cooled(released: str, now_s: float, cooldown_s: int) -> bool:
    return cooldown_s == 0 or now_s - from_rfc3339(released) >= cooldown_s


def _pointed(allocations: tuple[int | None, ...], ordinals: Iterable[int], index: int) -> tuple[int | None, ...]:
    changed = list(allocations)
    for ordinal in ordinals:
        changed[ordinal] = index
    return tuple(changed)


def _stamped(spec: IPAMBlockSpec, ordinals: Iterable[int]) -> dict[str, int]:
    return {
        **spec.sequence_number_for_allocation,
        **{str(ordinal): spec.sequence_number for ordinal in ordinals},
    }


def _with_attribute(known: tuple[Raw, ...], wanted: AllocationAttribute) -> tuple[tuple[Raw, ...], int]:
    """The attributes with `wanted` among them, and its index: equal entries are one, fields unknown to us included."""
    for index, attribute in _entries(known, wanted.handle_id):
        if attribute == wanted and msgspec.json.decode(known[index]) == msgspec.to_builtins(wanted):
            return known, index
    return (*known, Raw(msgspec.json.encode(wanted))), len(known)


def decoded(raw: Raw) -> AllocationAttribute:
    """An entry of `attributes`."""
    return _decoded(bytes(raw))


@lru_cache(maxsize=8192)
def _decoded(text: bytes) -> AllocationAttribute:
    """A block is looked at far more often than it changes."""
    return msgspec.json.decode(text, type=AllocationAttribute)


@lru_cache(maxsize=4096)
def _range(cidr: str) -> tuple[int, int]:
    """First address as a number, and how many there are."""
    network = ipaddress.ip_network(cidr)
    return int(network.network_address), network.num_addresses


def _replaced(block: IPAMBlock, **fields: object) -> IPAMBlock:
    return structs.replace(block, spec=structs.replace(block.spec, **fields))
