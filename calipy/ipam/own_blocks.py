"""Which blocks are this node's: what the mirror of all claims shows, and what happened here a moment ago. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from calipy.ipam import claims
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.cidrs import family_of
from calipy.resources.ip_pools import IPPool


class OwnBlocks:
    """One node's blocks (CIDRs). `affinities` gives all nodes' claims, with some delay: another sequence each time that
    something has changed, so that a cluster's claims are looked through once for each change, not for each address."""

    def __init__(self, node: str, affinities: Callable[[], Sequence[BlockAffinity]]) -> None:
        self._node = node
        self._affinities = affinities
        self._gained: set[str] = set()
        self._lost: set[str] = set()
        self._seen: Sequence[BlockAffinity] = ()
        self._mine: tuple[BlockAffinity, ...] = ()
        """This node's among those."""
        self._ordered: dict[int, tuple[str, ...]] = {}
        """Family -> blocks; empty where something has changed since."""

    def gained(self, cidr: str) -> None:
        """The node has claimed it."""
        self._gained.add(cidr)
        self._lost.discard(cidr)
        self._ordered.clear()

    def lost(self, cidr: str) -> None:
        """It turned out that it isn't the node's any more."""
        self._gained.discard(cidr)
        self._lost.add(cidr)
        self._ordered.clear()

    def all(self, family: int) -> tuple[str, ...]:
        """The confirmed ones of a family, in a stable order."""
        own = self._own()
        if family not in self._ordered:
            mine = ({a.spec.cidr for a in own if a.confirmed} | self._gained) - self._lost
            found = (cidr for cidr in mine if family_of(cidr) == family)
            self._ordered[family] = tuple(sorted(found, key=ipaddress.ip_network))
        return self._ordered[family]

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

    def _own(self) -> tuple[BlockAffinity, ...]:
        found = self._affinities()
        if found is not self._seen:
            self._seen = found
            self._mine = tuple(a for a in found if a.spec.node == self._node and a.spec.type != "virtual")
            self._ordered.clear()
        return self._mine
