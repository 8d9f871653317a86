"""Reads everything about addresses out of a store, for the judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calipy.datastore.stores import Store
from calipy.ipam.judge.values import Snapshot
from calipy.resources import (
    block_affinities,
    ip_pools,
    ip_reservations,
    ipam_blocks,
    ipam_configurations,
    ipam_handles,
    nodes,
    pods,
)
from calipy.resources.metadata import Key, Kind, R

_JUDGED: tuple[Kind[Any], ...] = (
    ipam_blocks.KIND,
    block_affinities.KIND,
    ipam_handles.KIND,
    pods.KIND,
    nodes.KIND,
)


class _Reading:
    """Lists of several kinds, one after another."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revisions: dict[Key, int] = {}
        self.lowest: int | None = None

    async def list(self, kind: Kind[R]) -> tuple[R, ...]:
        found: list[R] = []
        async for page in self._store.list(kind):
            self.lowest = page.revision if self.lowest is None else min(self.lowest, page.revision)
            self.revisions.update((stored.key, stored.revision) for stored in page.items)
            found += [stored.value for stored in page.items]
        return tuple(found)


async def read(store: Store) -> Snapshot:
    """A snapshot. The store goes on meanwhile: lists of different kinds show different moments, so the kinds that the
    judge compares are looked at twice, and what changed in between is named (`moving`). Raises StoreError."""
    first = _Reading(store)
    pools = await first.list(ip_pools.KIND)
    reservations = await first.list(ip_reservations.KIND)
    configurations = await first.list(ipam_configurations.KIND)
    blocks = await first.list(ipam_blocks.KIND)
    affinities = await first.list(block_affinities.KIND)
    handles = await first.list(ipam_handles.KIND)
    found_pods = await first.list(pods.KIND)
    found_nodes = await first.list(nodes.KIND)
    own = [value for value in configurations if value.metadata.name == "default"]
    return Snapshot(
        revision=first.lowest or 0,
        pools=pools,
        reservations=reservations,
        configuration=own[0] if own else ipam_configurations.DEFAULT,
        blocks=blocks,
        affinities=affinities,
        handles=handles,
        pods=found_pods,
        nodes=found_nodes,
        moving=_moved(first.revisions, await _revisions(store)),
    )


async def _revisions(store: Store) -> Mapping[Key, int]:
    second = _Reading(store)
    for kind in _JUDGED:
        await second.list(kind)
    return second.revisions


def _moved(before: Mapping[Key, int], after: Mapping[Key, int]) -> frozenset[Key]:
    judged = {kind.name for kind in _JUDGED}
    return frozenset(
        key for key in before.keys() | after.keys() if key.kind in judged and before.get(key) != after.get(key)
    )
