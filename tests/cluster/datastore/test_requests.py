"""What the agent's parts ask of a real API server: they follow it, and give a pod its addresses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from calipy.agent.feed import Feed, watched
from calipy.cni.draws import AllocatedAddresses
from calipy.cni.needs import Demand
from calipy.cni.pods import Mark, StoredPods
from calipy.cni.protocol import PodReference
from calipy.datastore.kubernetes.credentials import find
from calipy.datastore.kubernetes.store import KubernetesStore
from calipy.datastore.mirror import Mirror
from calipy.ipam.allocator import Allocator
from calipy.resources import ip_pools, pods
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Key, ObjectMeta
from tests.cluster.control_plane import ApiServer
from tests.cluster.datastore.conftest import ApiBackDoor

IPAM = ("ipamblocks", "ipamhandles", "blockaffinities", "ippools")


@pytest.fixture
def cluster(api: ApiServer) -> Iterator[ApiBackDoor]:
    """A pod, its node, and a pool."""
    door = ApiBackDoor(api)
    made = {
        Key("Node", "n1"): {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}},
        Key("Pod", "web", "one"): {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "one"},
            "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": "local.test/web"}]},
        },
    }
    for key, document in made.items():
        door.create(key, document)
    yield door
    for key in made:
        door.remove(key)
    names = ",".join(f"{name}.projectcalico.org" for name in IPAM)
    api.kubectl("delete", names, "--all", "--wait=false", check=True)


@asynccontextmanager
async def agent(api: ApiServer, seen: list[str]) -> Any:
    """Store, and allocator that is in sync; `seen` gets verb and resource of each request."""

    def observe(verb: str, resource: str, code: str) -> None:
        if (verb, code) == ("watch", "429"):  # a kind that the server has learned just now; asked again
            return
        assert code in ("200", "201"), (verb, resource, code)
        seen.append(f"{verb} {resource.removesuffix('.projectcalico.org')}")

    store = await KubernetesStore.open(find(str(api.kubeconfig), {}), own_node="n1", observe=observe)
    pool = IPPool(metadata=ObjectMeta(name="a"), spec=IPPoolSpec(cidr="10.244.0.0/16"))
    await store.create(ip_pools.KIND, pool)
    mirror = Mirror(store, watched())
    feed = Feed(mirror, "n1")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(feed.run(lambda events: None)), group.create_task(mirror.run())]
        await feed.in_sync.wait()
        allocator = Allocator(store, "n1", feed, time.time)
        await allocator.adopt()
        yield store, allocator
        for task in tasks:
            task.cancel()
    await store.close()


async def test_adding_a_pod_asks_as_little_as_it_can(api: ApiServer, cluster: ApiBackDoor) -> None:
    seen: list[str] = []
    async with agent(api, seen) as (store, allocator):
        addresses = AllocatedAddresses(allocator, "n1", time.time)
        stored = StoredPods(store, "n1", embedded=False)

        async def add(container: str) -> str:
            reference = PodReference("one", "web")
            assert await stored.find(reference) is not None
            (drawn,) = await addresses.draw(Demand(handle=f"net.{container}", families=(4,), pod=reference))
            assert await stored.mark(reference, Mark(container, (drawn.address,)), {})
            return drawn.address

        await add("first")  # claims a block
        seen.clear()
        address = await add("second")
        asked = [each for each in seen if not each.startswith("watch")]
        assert sorted(asked) == sorted(
            ["get pods", "get namespaces", "create ipamhandles", "patch ipamblocks", "get pods", "patch pods/status"]
        )
        assert cluster.read(Key("Pod", "web", "one"))["metadata"]["annotations"][pods.POD_IP] == f"{address}/32"

        seen.clear()
        await addresses.release("net.second")
        await stored.blank(PodReference("one", "web"), "second")
        asked = [each for each in seen if not each.startswith("watch")]
        assert asked == ["patch ipamblocks", "delete ipamhandles", "get pods", "patch pods/status"]
        assert cluster.read(Key("Pod", "web", "one"))["metadata"]["annotations"][pods.POD_IP] == ""
