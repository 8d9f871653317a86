"""Which blocks are this node's: what the mirror of all claims shows, and what happened here a moment ago. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from calipy.ipam import claims
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool


class OwnBlocks:
    """One node's blocks (CIDRs). `affinities` gives all nodes' claims, with some delay."""

    def __init__(self, node: str, affinities: Callable[[], Sequence[BlockAffinity]]) -> None:
        self._node = node
        self._affinities = affinities
        self._gained: set[str] = set()
        self._lost: set[str] = set()

    def gained(self, cidr: str) -> None:
        """The node has claimed it."""
        self._gained.add(cidr)
        self._lost.discard(cidr)

    def lost(self, cidr: str) -> None:
        """It turned out that it isn't the node's any more."""
        self._gained.discard(cidr)
        self._lost.add(cidr)

    def all(self, family: int) -> list[str]:
        """The confirmed ones of a family, in a stable order."""
        confirmed = {a.spec.cidr for a in self._own() if a.confirmed}
        mine = (confirmed | self._gained) - self._lost
        return sorted((c for c in mine if (6 if ":" in c else 4) == family), key=ipaddress.ip_network)

    def within(self, family: int, pools: Iterable[IPPool]) -> list[str]:
        """Those that lie in one of these pools."""
        pools = tuple(pools)
        return [cidr for cidr in self.all(family) if claims.pool_of(pools, cidr) is not None]

    def unfinished(self, family: int) -> list[BlockAffinity]:
        """Claims of the node that an earlier process left half-made."""
        known = self._gained | self._lost
        return [a for a in self._own() if a.family == family and not a.confirmed and a.spec.cidr not in known]

    def unlabelled(self) -> list[BlockAffinity]:
        """Claims of the node from a version that gave no labels."""
        return [a for a in self._own() if not claims.labelled(a)]

    def taken(self) -> frozenset[str]:
        """What any node claims, as far as is known."""
        return frozenset({a.spec.cidr for a in self._affinities() if not a.spec.deleted} | self._gained)

    def _own(self) -> list[BlockAffinity]:
        return [a for a in self._affinities() if a.spec.node == self._node and a.spec.type != "virtual"]
