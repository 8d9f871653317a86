"""A node's own blocks and tunnel addresses are looked at when what they rest on has changed, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from calipy.agent.own_addresses import OwnAddresses, PodCidrs
from calipy.datastore.sqlite import SQLiteStore
from calipy.resources import ip_pools, nodes
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import Node, NodeSpec
from tests.unit.resources.objects import made

TUNNEL = {nodes.VXLAN_ADDRESS: "10.0.0.1", nodes.VXLAN_MAC: "66:79:fb:c0:78:ca"}


class Pools:
    """What a feed and an allocator would tell."""

    def __init__(self) -> None:
        self.held: tuple[IPPool, ...] = ()
        self.own: Node | None = None
        self.listener: Callable[[frozenset[str]], None] = lambda kinds: None
        self.adopted = 0

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        self.listener = listener

    def pools_in_force(self) -> Sequence[IPPool]:
        return self.held

    def pools(self) -> Sequence[IPPool]:
        return self.held

    def node_labels(self) -> Mapping[str, str]:
        return self.own.metadata.labels if self.own else {}

    def node(self) -> Node | None:
        return self.own

    async def adopt(self) -> None:
        self.adopted += 1

    async def addresses_of(self, _: str) -> tuple[str, ...]:
        return ("10.0.0.1",)

    async def release(self, _: str) -> None:
        return None


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = await SQLiteStore.open(tmp_path / "store")
    yield store
    await store.close()


async def test_only_news_that_matter_are_followed(store: SQLiteStore) -> None:
    found = Pools()
    found.own = (await store.create(nodes.KIND, Node(metadata=ObjectMeta(name="n1", labels={"a": "b"})))).value
    settled = asyncio.Queue[None]()
    own = OwnAddresses(store, cast(Any, found), cast(Any, found), "n1")

    async def news(kind: str, looks: int) -> None:
        """So often it is looked at again when `kind` has changed."""
        before = found.adopted
        found.listener(frozenset((kind,)))
        for _ in range(looks):
            await asyncio.wait_for(settled.get(), 10)
        for _ in range(50):
            await asyncio.sleep(0)
        assert found.adopted == before + looks

    async with asyncio.TaskGroup() as group:
        task = group.create_task(own.run(lambda: settled.put_nowait(None)))
        await asyncio.wait_for(settled.get(), 10)
        await news("Node", 0)  # another's
        found.held = (made(ip_pools.KIND, {"cidr": "10.0.0.0/16", "vxlanMode": "Always"}),)
        await news("IPPool", 1)
        found.own = (await store.get(nodes.KIND, "n1")).value
        assert found.own.metadata.annotations.keys() == TUNNEL.keys()
        await news("Node", 1)  # what was written is seen; there is nothing more to write
        await news("Node", 0)
        labelled = structs.replace(found.own.metadata, labels={"a": "c"})
        found.own = structs.replace(found.own, metadata=labelled)
        await news("Node", 1)
        await news("Pod", 0)
        task.cancel()


async def test_with_use_pod_cidr_the_allocator_sees_what_the_node_may_draw_from() -> None:
    found = Pools()
    inputs = PodCidrs(cast(Any, found))
    found.held = (made(ip_pools.KIND, {"cidr": "10.0.0.0/16"}),)
    assert not inputs.pools()[0].allocatable, "kubelet's Node has no podCIDR yet"
    found.own = Node(metadata=ObjectMeta(name="n1"), spec=NodeSpec(pod_cidrs=("10.0.3.0/24",)))
    assert [pool.spec.cidr for pool in inputs.pools()] == ["10.0.3.0/24"]
    assert inputs.pools() is inputs.pools()
    found.held = ()
    assert inputs.pools() == ()
