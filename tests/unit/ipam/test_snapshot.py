"""Reading a snapshot out of a store that others write to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Page
from calipy.ipam import snapshot
from calipy.ipam.blocks import new_block
from calipy.ipam.claims import new_affinity
from calipy.ipam.handles import new_handle
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
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.ip_reservations import IPReservation, IPReservationSpec
from calipy.resources.ipam_configurations import IPAMConfiguration, IPAMConfigurationSpec
from calipy.resources.metadata import Key, Kind, ObjectMeta, R
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod


async def filled(store: SQLiteStore) -> int:
    """The revision of the last write."""
    cidr = "10.0.0.0/30"
    spec = IPAMConfigurationSpec(strict_affinity=True)
    await store.create(ipam_configurations.KIND, IPAMConfiguration(metadata=ObjectMeta(name="default"), spec=spec))
    await store.create(nodes.KIND, Node(metadata=ObjectMeta(name="n1")))
    await store.create(pods.KIND, Pod(metadata=ObjectMeta(name="a", namespace="default")))
    await store.create(ip_pools.KIND, IPPool(metadata=ObjectMeta(name="p"), spec=IPPoolSpec(cidr="10.0.0.0/24")))
    reserved = IPReservation(metadata=ObjectMeta(name="r"), spec=IPReservationSpec(reserved_cidrs=("10.0.0.1/32",)))
    await store.create(ip_reservations.KIND, reserved)
    await store.create(block_affinities.KIND, new_affinity("n1", cidr))
    await store.create(ipam_blocks.KIND, new_block(cidr, "host:n1", 1.0))
    return (await store.create(ipam_handles.KIND, new_handle("k8s.a", {cidr: 1}))).revision


async def test_a_snapshot_holds_every_kind_and_says_its_revision(store: SQLiteStore) -> None:
    newest = await filled(store)
    found = await snapshot.read(store)
    assert found.revision == newest
    assert found.configuration.spec.strict_affinity
    for values, name in (
        (found.nodes, "n1"), (found.pods, "a"), (found.pools, "p"), (found.reservations, "r"),
        (found.affinities, "n1-10-0-0-0-30"), (found.blocks, "10-0-0-0-30"), (found.handles, "k8s.a"),
    ):  # fmt: skip
        assert [value.metadata.name for value in values] == [name]
    assert found.moving == frozenset()


async def test_an_empty_store_has_the_built_in_configuration(store: SQLiteStore) -> None:
    assert (await snapshot.read(store)).configuration == ipam_configurations.DEFAULT


class Busy(SQLiteStore):
    """A store in which somebody writes once handles have been listed."""

    written = False

    async def list(
        self, kind: Kind[R], *, namespace: str = "", labels: Mapping[str, str] | None = None, page_size: int = 500
    ) -> AsyncIterator[Page[R]]:
        async for page in super().list(kind, namespace=namespace, labels=labels, page_size=page_size):
            yield page
        if kind.name == "IPAMHandle" and not self.written:
            self.written = True
            await self._write_something()

    async def _write_something(self) -> None:
        await self.delete(ipam_handles.KIND, await self.get(ipam_handles.KIND, "k8s.a"))
        await self.create(ipam_handles.KIND, new_handle("k8s.b", {"10.0.0.0/30": 1}))
        block = await self.get(ipam_blocks.KIND, "10-0-0-0-30")
        await self.update(ipam_blocks.KIND, block, new_block("10.0.0.0/30", None, 2.0))


async def test_what_changes_meanwhile_is_named(store: SQLiteStore, store_path: Path) -> None:
    newest = await filled(store)
    busy = await Busy.open(store_path)
    found = await snapshot.read(busy)
    await busy.close()
    assert found.moving == {
        Key("IPAMHandle", "k8s.a"), Key("IPAMHandle", "k8s.b"), Key("IPAMBlock", "10-0-0-0-30"),
    }  # fmt: skip
    assert found.revision == newest
