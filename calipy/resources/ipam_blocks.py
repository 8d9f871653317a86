"""IPAMBlock (projectcalico.org/v3): one block of a pool, who holds it, and who holds each of its addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from calipy.resources.metadata import Kind, Problem, Resource


class AllocationAttribute(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What is known of one holder. An entry with only `releasedAt` stands for addresses that cool down."""

    handle_id: str | None = None
    secondary: dict[str, str] = {}
    """Calico's active owner attributes: pod, namespace, node, timestamp, type, service, ..."""
    alternate_owner_attrs: dict[str, str] = msgspec.field(name="alternateOwnerAttrs", default={})
    released_at: str | None = msgspec.field(name="releasedAt", default=None)
    """RFC 3339 time of the release."""


class IPAMBlockSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico IPAMBlockSpec. An address's ordinal is its distance from the block's first address."""

    cidr: str
    allocations: tuple[int | None, ...]
    """Ordinal -> index into `attributes`, None where free; as long as the block."""
    unallocated: tuple[int, ...]
    """Free ordinals, first in, first out: given from the head, freed to the tail."""
    attributes: tuple[Raw, ...]
    """JSON of AllocationAttribute; kept as text so that a field unknown to us survives a write."""
    affinity: str | None = None
    """`host:<node>` or `virtual:<name>`; None = nobody's."""
    affinity_claim_time: str | None = None
    sequence_number: int = 0
    sequence_number_for_allocation: dict[str, int] = {}
    """Decimal ordinal -> the block's sequence number when that address was given out."""
    deleted: bool = False
    strict_affinity: bool = msgspec.field(name="strictAffinity", default_factory=lambda: False)
    """Means nothing any more, but the schema requires it: the factory keeps it from being left out as a default."""


class IPAMBlock(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPAMBlock"):
    """A block of addresses."""

    spec: IPAMBlockSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def name_of(cidr: str) -> str:
    """The object's name for a block: `10.244.1.0/26` -> `10-244-1-0-26`."""
    return cidr.replace(".", "-").replace(":", "-").replace("/", "-")


def problems(block: IPAMBlock) -> Iterator[Problem]:
    """A block whose arrays contradict its size can't be used at all."""
    spec = block.spec
    try:
        size = ipaddress.ip_network(spec.cidr).num_addresses
    except ValueError:
        yield Problem("spec.cidr", spec.cidr, "is not a masked CIDR", "delete the block; it can't be repaired")
        return
    if len(spec.allocations) != size:
        reason = f"has {len(spec.allocations)} entries where the block has {size} addresses"
        yield Problem("spec.allocations", "[...]", reason, "restore the block from a backup")
    known = len(spec.attributes)
    used = [index for index in spec.allocations if index is not None]
    if not used or (min(used) >= 0 and max(used) < known):
        return
    for ordinal, index in enumerate(spec.allocations):
        if index is not None and not 0 <= index < known:
            reason = f"points at attribute {index} of {known}"
            yield Problem(f"spec.allocations[{ordinal}]", index, reason, "release the address")


KIND = Kind(
    name="IPAMBlock", group="projectcalico.org", version="v3", plural="ipamblocks", type=IPAMBlock, problems=problems
)  # fmt: skip
