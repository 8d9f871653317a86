"""What the judge is given and what it says. Pure values."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_blocks import IPAMBlock
from calipy.resources.ipam_configurations import DEFAULT, IPAMConfiguration
from calipy.resources.ipam_handles import IPAMHandle
from calipy.resources.metadata import Key
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod


class Snapshot(Struct, frozen=True, gc=False, kw_only=True):
    """All that has to do with addresses, as one reading of the store found it."""

    revision: int
    """The store's revision up to which everything is in it."""
    pools: tuple[IPPool, ...] = ()
    reservations: tuple[IPReservation, ...] = ()
    configuration: IPAMConfiguration = DEFAULT
    blocks: tuple[IPAMBlock, ...] = ()
    affinities: tuple[BlockAffinity, ...] = ()
    handles: tuple[IPAMHandle, ...] = ()
    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] = ()
    moving: frozenset[Key] = frozenset()
    """Objects that changed while the others were read: what concerns them can't be judged now."""


Severity = Literal["error", "warning", "note"]
"""An error loses traffic or gives an address out twice, or will; a warning wastes addresses or hides something; a note
is worth knowing and needs nobody."""

What = Literal[
    "held-twice",
    "held-by-other",
    "not-allocated",
    "leaked",
    "starting",
    "node-gone",
    "tunnel-of-gone-node",
    "tunnel-unused",
    "outside-pools",
    "pod-outside-pools",
    "allocation-without-handle",
    "handle-without-allocation",
    "counter-low",
    "counter-high",
    "block-without-affinity",
    "affinity-without-block",
    "owner-differs",
    "claim-unfinished",
    "labels-missing",
    "orphan",
    "orphan-empty",
    "overlap",
    "size-differs",
    "misnamed",
    "lists-disagree",
    "attribute-missing",
    "half-deleted",
    "reserved-allocated",
    "cooled-down",
    "refused",
    "pools-overlap",
]
"""Classes of findings: addresses and their holders, then handles, owners of blocks, blocks themselves, settings."""


class Finding(Struct, frozen=True, gc=False, kw_only=True):
    """One thing that isn't as it should be."""

    what: What
    severity: Severity
    object: str
    """Kind/name (Kind/namespace/name) of the object that it was seen in."""
    address: str = ""
    """The address or block that it is about; empty if it is about none."""
    words: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.object}: {self.words}; {self.remedy}"


Standing = Literal["used", "starting", "leaked", "node-gone", "unknowable"]
"""How an allocation stands.

used: its holder is there and has it. starting: its pod is there and has no address yet: it is being attached, if this
doesn't last. leaked: its pod is gone, elsewhere, finished, or has other addresses; a true leak stays so. node-gone:
besides, its node is gone. unknowable: it doesn't say whose it is, or nothing in the store could disprove it; never
collected.
"""


class Allocation(Struct, frozen=True, gc=False, kw_only=True):
    """An address that is given out (one that cools down isn't)."""

    address: str
    block: str
    """CIDR of its block."""
    pool: str
    """Name of its pool; empty where it lies in none."""
    handle: str
    """Empty where it has none."""
    sequence: int
    """A release under this number fails if the address was given out anew meanwhile."""
    node: str = ""
    namespace: str = ""
    pod: str = ""
    type: str = ""
    """Attribute `type`: of tunnels (`vxlanTunnelAddress`, ...)."""
    borrowed: bool = False
    """True if another node owns the block."""
    standing: Standing = "unknowable"
    reason: str = ""
    """Why it stands so, in words; empty for those in use."""


class PoolTotals(Struct, frozen=True, gc=False, kw_only=True):
    """A pool in numbers of addresses."""

    name: str
    cidr: str
    size: int
    reserved: int
    """Kept from automatic assignment; those among them that are allocated count in both."""
    allocated: int
    cooling: int
    free: int
    """Neither allocated nor cooling nor reserved."""
    blocks: int
    borrowed: int
    """Of the allocated ones: in use on other nodes than the block's owner."""


class BlockTotals(Struct, frozen=True, gc=False, kw_only=True):
    """A block in numbers of addresses."""

    cidr: str
    pool: str
    owner: str
    """Node, or empty for a block that is nobody's."""
    size: int
    allocated: int
    cooling: int
    free: int
    borrowed: int


class Verdict(Struct, frozen=True, gc=False, kw_only=True):
    """What the judge says."""

    revision: int
    findings: tuple[Finding, ...]
    allocations: tuple[Allocation, ...]
    """By block, then by address."""
    pools: tuple[PoolTotals, ...]
    """By name."""
    blocks: tuple[BlockTotals, ...]
    """By address."""

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def sound(self) -> bool:
        """True if there is nothing but notes."""
        return all(finding.severity == "note" for finding in self.findings)
