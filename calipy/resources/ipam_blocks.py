"""IPAMBlock (projectcalico.org/v3): one block of a pool, who holds it, and who holds each of its addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from calipy.resources.definitions import Column, Constraint, Definition
from calipy.resources.metadata import Kind, Problem, Resource


class AllocationAttribute(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What is known of one holder. An entry with only `releasedAt` stands for addresses that cool down."""

    handle_id: str | None = None
    """The holder, as IPAMHandle has it."""
    secondary: dict[str, str] = {}
    """Calico's active owner attributes: pod, namespace, node, timestamp, type, service, ..."""
    alternate_owner_attrs: dict[str, str] = msgspec.field(name="alternateOwnerAttrs", default={})
    """The same of a second owner, while a virtual machine moves."""
    released_at: str | None = msgspec.field(name="releasedAt", default=None)
    """RFC 3339 time of the release."""


class IPAMBlockSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The block's addresses, each by its ordinal: its distance from the first one (Calico's IPAMBlockSpec)."""

    cidr: str
    """The block."""
    allocations: tuple[int | None, ...]
    """Ordinal -> index into `attributes`, None where free; as long as the block."""
    unallocated: tuple[int, ...]
    """Free ordinals, first in, first out: given from the head, freed to the tail."""
    attributes: tuple[Raw, ...]
    """Who holds addresses: what allocations point at."""
    # JSON of AllocationAttribute, kept as text so that a field unknown to us survives a write.
    affinity: str | None = None
    """Whose the block is: `host:<node>` or `virtual:<name>`. Left out, nobody's."""
    affinity_claim_time: str | None = None
    """Since when (RFC 3339)."""
    sequence_number: int = 0
    """Counts the block's changes, from the time of its making (nanoseconds since 1970)."""
    sequence_number_for_allocation: dict[str, int] = {}
    """Decimal ordinal -> the block's sequence number when that address was given out."""
    deleted: bool = False
    """Whether the block is to be read as if it weren't there."""
    strict_affinity: bool = msgspec.field(name="strictAffinity", default_factory=lambda: False)
    """Means nothing any more, but has to be there."""
    # By a factory, so that it isn't left out as a default.


class IPAMBlock(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPAMBlock"):
    """A block of a pool: who holds it, and who holds each of its addresses. Nodes write it, nobody else has to."""

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


_ATTRIBUTES = "spec.attributes[]"
_DEFINITION = Definition(
    columns=(
        Column(name="CIDR", path=".spec.cidr", description="The block."),
        Column(name="Affinity", path=".spec.affinity", description="Whose it is."),
    ),
    holds=((_ATTRIBUTES, lambda: AllocationAttribute),),
    constraints=(
        Constraint(path="spec.cidr", format="cidr"),
        Constraint(path="spec.affinity", pattern=r"^(host|virtual):[a-zA-Z0-9\.\-_]+$"),
        Constraint(path="spec.affinityClaimTime", format="date-time"),
        Constraint(path="spec.sequenceNumber", format="int64", default=0),
        Constraint(path="spec.sequenceNumberForAllocation[]", format="int64"),
        Constraint(path=f"{_ATTRIBUTES}.releasedAt", format="date-time"),
    ),
)

KIND = Kind(
    name="IPAMBlock", group="projectcalico.org", version="v3", plural="ipamblocks", type=IPAMBlock, problems=problems,
    definition=_DEFINITION,
)  # fmt: skip
