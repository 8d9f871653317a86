"""What only a real API server does: restarts, compaction, RBAC, subresources; and what is kept of its pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from calipy.datastore.kubernetes.credentials import Credentials, find
from calipy.datastore.kubernetes.store import KubernetesStore
from calipy.datastore.kubernetes.tls import Pem, context
from calipy.datastore.kubernetes.tokens import TokenFile
from calipy.datastore.mirror import Mirror
from calipy.datastore.stores import Conflict, Expired, NotFound, Store, Unauthorized, Unavailable
from calipy.resources import ipam_handles, network_sets, nodes, pods
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import Key, ObjectMeta, Refused
from calipy.resources.network_sets import NetworkSet
from tests.cluster.control_plane import ApiServer
from tests.cluster.datastore.conftest import ApiBackDoor

HANDLE = ipam_handles.KIND


def handle(name: str) -> IPAMHandle:
    return IPAMHandle(metadata=ObjectMeta(name=name), spec=IPAMHandleSpec(handle_id=name, block={}))


def by_token(api: ApiServer, path: Path) -> Credentials:
    tls = context("a test", authority=Pem(str(api.ca)), insecure=False, certificate=Pem(), key=Pem())
    return Credentials(source="a test", server=api.url, tls=tls, authorization=TokenFile(path))


async def wait_until(batches: AsyncIterator[Any], true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await anext(batches)


async def test_a_mirror_outlives_a_server_that_is_killed_and_forgets(api: ApiServer, store: Store) -> None:
    first = await store.create(HANDLE, handle("a"))
    doomed = await store.create(HANDLE, handle("doomed"))
    mirror = Mirror(store, (HANDLE,))
    async with asyncio.TaskGroup() as group:
        follower = group.create_task(mirror.run())
        batches = aiter(mirror.batches())
        await wait_until(batches, lambda: len(mirror.current(HANDLE)) == 2)

        api.stop_api()
        with pytest.raises(Unavailable, match="check that kube-apiserver runs and can be reached from here"):
            await store.get(HANDLE, "a")
        api.start_api()
        second = await store.create(HANDLE, handle("b"))
        await wait_until(batches, lambda: len(mirror.current(HANDLE)) == 3)
        assert mirror.current(HANDLE)[first.key] == first

        await store.delete(HANDLE, doomed)
        await wait_until(batches, lambda: len(mirror.current(HANDLE)) == 2)
        follower.cancel()
    assert mirror.current(HANDLE) == {first.key: first, second.key: second}

    api.compact()
    api.stop_api()
    api.start_api()
    with pytest.raises(Expired, match="list again"):
        await anext(aiter(store.watch(HANDLE, first.revision)))


async def test_a_list_whose_revision_was_forgotten_is_expired(api: ApiServer, store: Store) -> None:
    for name in "abc":
        await store.create(HANDLE, handle(name))
    pages = aiter(store.list(HANDLE, page_size=1))
    assert len((await anext(pages)).items) == 1
    await store.create(HANDLE, handle("d"))
    api.compact()
    api.stop_api()
    api.start_api()
    with pytest.raises(Expired, match="list again"):
        await anext(pages)


async def test_what_rbac_does_not_allow_is_named(api: ApiServer, store: Store) -> None:
    made = await store.create(HANDLE, handle("a"))
    poor = await KubernetesStore.open(find(str(api.user_kubeconfig("poor")), {}))
    reading = r"allow verb 'get' on resource 'ipamhandles\.projectcalico\.org' in its Role or ClusterRole"
    in_one = r"may not create networksets\.projectcalico\.org in namespace one .*allow verb 'create' on resource"
    try:
        with pytest.raises(Unauthorized, match=reading):
            await poor.get(HANDLE, "a")
        with pytest.raises(Unauthorized, match="verb 'list' on resource 'pods'"):
            await anext(aiter(poor.list(pods.KIND)))
        with pytest.raises(Unauthorized, match="verb 'watch' on resource 'nodes'"):
            await anext(aiter(poor.watch(nodes.KIND, 1)))
        with pytest.raises(Unauthorized, match=in_one):
            await poor.create(network_sets.KIND, NetworkSet(metadata=ObjectMeta(name="a", namespace="one")))
        labelled = replace(made.value, metadata=replace(made.value.metadata, labels={"a": "b"}))
        with pytest.raises(Unauthorized, match="verb 'patch'"):
            await poor.update(HANDLE, made, labelled)
        with pytest.raises(Unauthorized, match="verb 'delete'"):
            await poor.delete(HANDLE, made)
    finally:
        await poor.close()


async def test_a_token_that_ends_is_read_anew(api: ApiServer, store: Store, token: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("ended")
    credentials = by_token(api, path)
    with pytest.raises(Unauthorized, match=r"doesn't know who asks \(HTTP 401: Unauthorized\)"):
        await KubernetesStore.open(credentials)
    path.write_text(token)
    client = await KubernetesStore.open(credentials)
    await client.create(HANDLE, handle("a"))
    await client.close()


async def test_a_server_whose_certificate_nobody_signed_is_refused(api: ApiServer, token: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token)
    strict = context("a test", authority=Pem(), insecure=False, certificate=Pem(), key=Pem())
    with pytest.raises(Unavailable, match="self-signed certificate|unable to get local issuer certificate"):
        await KubernetesStore.open(replace(by_token(api, path), tls=strict))
    named = replace(by_token(api, path), server_name="kubernetes.default.svc")
    await (await KubernetesStore.open(named)).close()


async def test_a_namespace_that_is_not_there_or_is_going_is_named(api: ApiServer, store: Store) -> None:
    with pytest.raises(NotFound, match="NetworkSet/nowhere/a: Namespace/nowhere does not exist; create it first"):
        await store.create(network_sets.KIND, NetworkSet(metadata=ObjectMeta(name="a", namespace="nowhere")))
    api.kubectl("create", "namespace", "going", check=True)
    api.kubectl("delete", "namespace", "going", "--wait=false", check=True)
    with pytest.raises(Refused, match=r"metadata\.namespace: 'going': is being deleted"):
        await store.create(network_sets.KIND, NetworkSet(metadata=ObjectMeta(name="a", namespace="going")))


# --- pods and nodes ---

CONTAINER = {
    "name": "web",
    "image": "local.test/web",
    "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}, {"containerPort": 82, "hostPort": 8082}],
}


@pytest.fixture
def pod(back_door: ApiBackDoor, store: Store) -> Any:
    """A pod that is on node n1."""
    key = Key("Pod", "web", "one")
    meta = {"name": "web", "namespace": "one", "labels": {"a": "b"}, "annotations": {"c": "d"}}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1"}
    spec = {"nodeName": "n1", "containers": [CONTAINER, {**CONTAINER, "name": "none", "ports": []}]}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "ownerReferences": [owner]}, "spec": spec}
    back_door.create(key, document)
    yield key
    back_door.remove(key)


async def test_annotations_of_a_pod_are_written_through_its_status(
    api: ApiServer, store: Store, pod: Key, back_door: ApiBackDoor
) -> None:
    rules = ("--verb=patch", "--resource=pods/status,nodes/status")
    api.kubectl("create", "clusterrole", "marker", *rules, check=True)
    api.kubectl("create", "clusterrolebinding", "marker", "--clusterrole=marker", "--user=marker", check=True)
    marker = await KubernetesStore.open(find(str(api.user_kubeconfig("marker")), {}))
    try:
        read = await store.get(pods.KIND, "web", "one")
        noted = {**read.value.metadata.annotations, pods.POD_IP: "10.244.0.1/32"}
        new = replace(read.value, metadata=replace(read.value.metadata, annotations=noted))
        async with asyncio.timeout(10):
            while True:  # the server learns of the binding by a watch of its own
                try:
                    marked = await marker.update(pods.KIND, read, new)
                    break
                except Unauthorized:
                    await asyncio.sleep(0.05)
        assert marked.value.metadata.annotations == {"c": "d", pods.POD_IP: "10.244.0.1/32"}
        with pytest.raises(Conflict):
            await marker.update(pods.KIND, read, new)
        other = replace(marked.value, metadata=replace(marked.value.metadata, labels={}))
        with pytest.raises(Unauthorized, match="verb 'patch' on resource 'pods' in namespace one"):
            await marker.update(pods.KIND, marked, other)
    finally:
        await marker.close()
    assert back_door.read(pod)["spec"]["containers"][0]["image"] == "local.test/web"


async def test_a_status_is_written_apart(store: Store, back_door: ApiBackDoor) -> None:
    key = Key("Node", "n1")
    document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    back_door.create(key, document)
    try:
        read = await store.get(nodes.KIND, "n1")
        address = nodes.NodeStatusAddress(type="InternalIP", address="192.0.2.1")
        new = replace(
            read.value,
            metadata=replace(read.value.metadata, labels={"a": "b"}),
            status=nodes.NodeStatus(addresses=(address,)),
        )
        updated = await store.update(nodes.KIND, read, new)
        assert (updated.value.metadata.labels, updated.value.status.addresses) == ({"a": "b"}, (address,))
        assert await store.get(nodes.KIND, "n1") == updated
    finally:
        back_door.remove(key)


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_of_other_nodes_pods_only_a_part_is_kept(api: ApiServer, pod: Key, node: str) -> None:
    store = await KubernetesStore.open(find(str(api.kubeconfig), {}), own_node=node)
    try:
        pages = [page async for page in store.list(pods.KIND)]
        watched = await anext(aiter(store.watch(pods.KIND, pages[-1].items[0].revision - 1)))
        (listed,) = pages[-1].items
        assert watched.object == listed
        ports = [port.container_port for each in listed.value.spec.containers for port in each.ports]
        meta = listed.value.metadata
        if node == "n1":
            assert (ports, meta.annotations, len(meta.owner_references)) == ([80, 81, 82], {"c": "d"}, 1)
        else:
            assert (ports, meta.annotations, len(meta.owner_references)) == ([80, 82], {}, 0)
        assert (meta.labels, listed.value.spec.node_name, listed.key) == ({"a": "b"}, "n1", pod)
        noted = replace(listed.value, metadata=replace(meta, annotations={**meta.annotations, "e": "f"}))
        updated = await store.update(pods.KIND, listed, noted)
        assert updated.value.metadata.annotations == {"c": "d", "e": "f"}, "what was not kept is not taken away"
    finally:
        await store.close()


async def test_a_kept_object_does_not_keep_the_text_of_its_page(api: ApiServer, pod: Key) -> None:
    store = await KubernetesStore.open(find(str(api.kubeconfig), {}))
    try:
        (page,) = [page async for page in store.list(pods.KIND)]
        (reference,) = page.items[0].value.metadata.owner_references
        assert len(memoryview(reference).obj) < 200  # type: ignore[arg-type]
        assert msgspec.json.decode(reference)["kind"] == "ReplicaSet"
    finally:
        await store.close()
