"""What the allocator is asked for, what it answers, and what it needs to know. Values and a Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool, Use
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_configurations import IPAMConfiguration


class Inputs(Protocol):
    """What the allocator reads without asking the store."""

    def pools(self) -> Sequence[IPPool]:
        """All pools."""
        ...

    def reservations(self) -> Sequence[IPReservation]:
        """All reservations."""
        ...

    def configuration(self) -> IPAMConfiguration:
        """IPAMConfiguration `default`, or the built-in one."""
        ...

    def node_labels(self) -> Mapping[str, str]:
        """This node's labels."""
        ...

    def affinities(self) -> Sequence[BlockAffinity]:
        """All nodes' claims."""
        ...


class Request(Struct, frozen=True, gc=False, kw_only=True):
    """Addresses for one handle: so many of each family, all or none."""

    handle: str
    attributes: Mapping[str, str]
    families: Mapping[int, int]
    """Family -> how many."""
    pools: Mapping[int, tuple[str, ...]] = {}
    """Family -> names or CIDRs of the pools to draw from; a family that isn't there draws from any."""
    namespace_labels: Mapping[str, str] | None = None
    use: Use = "Workload"


class Assigned(Struct, frozen=True, gc=False, order=True):
    """An address that was given out."""

    address: str
    block: str
    """CIDR of its block."""
