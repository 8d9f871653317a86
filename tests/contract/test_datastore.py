"""What every store keeps: verbs, errors, compare-and-swap, pages, labels, finalizers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.resources import global_network_sets, ipam_handles, network_sets
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import Key, Kind, ObjectMeta, Problem, Refused
from calipy.resources.network_sets import NetworkSet

HANDLE, GLOBAL_SET, SET = ipam_handles.KIND, global_network_sets.KIND, network_sets.KIND
Another = Callable[[], Awaitable[Store]]


def handle(name: str, *, count: int = 1, **meta: Any) -> IPAMHandle:
    return IPAMHandle(
        metadata=ObjectMeta(name=name, **meta), spec=IPAMHandleSpec(handle_id=name, block={"10.0.0.0/26": count})
    )


def counting(value: IPAMHandle, count: int) -> IPAMHandle:
    return replace(value, spec=replace(value.spec, block={"10.0.0.0/26": count}))


def network_set(namespace: str, name: str, **labels: str) -> NetworkSet:
    return NetworkSet(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels))


async def listed(store: Store, kind: Kind[Any], **how: Any) -> list[Stored[Any]]:
    return [stored async for page in store.list(kind, **how) for stored in page.items]


async def test_a_created_object_carries_what_the_store_adds(store: Store) -> None:
    created = await store.create(HANDLE, handle("a"))
    meta = created.value.metadata
    assert (meta.uid, meta.resource_version) == (created.uid, str(created.revision))
    assert meta.generation == 1
    assert meta.creation_timestamp is not None
    assert meta.creation_timestamp.endswith("Z")
    assert created.key == Key("IPAMHandle", "a")
    assert await store.get(HANDLE, "a") == created


async def test_what_a_client_sends_in_the_stores_own_fields_is_passed_over(store: Store) -> None:
    mine = ObjectMeta(
        name="a", uid="mine", resource_version="7", generation=9, deletion_timestamp="2001-01-01T00:00:00Z"
    )
    created = await store.create(HANDLE, replace(handle("a"), metadata=mine))
    assert created.uid != "mine"
    assert created.value.metadata.generation == 1
    assert created.value.metadata.deletion_timestamp is None


async def test_get_and_create_name_the_object_in_their_errors(store: Store) -> None:
    with pytest.raises(NotFound, match="IPAMHandle/a"):
        await store.get(HANDLE, "a")
    await store.create(HANDLE, handle("a"))
    with pytest.raises(Exists, match="IPAMHandle/a"):
        await store.create(HANDLE, handle("a"))


async def test_same_name_in_two_namespaces_is_two_objects(store: Store) -> None:
    await store.create(SET, network_set("one", "web"))
    await store.create(SET, network_set("two", "web"))
    assert (await store.get(SET, "web", "two")).key == Key("NetworkSet", "web", "two")
    assert [s.key.namespace for s in await listed(store, SET, namespace="one")] == ["one"]


@pytest.mark.parametrize(
    ("kind", "value", "field"),
    [
        (HANDLE, handle(""), "metadata.name"),
        (SET, network_set("", "web"), "metadata.namespace"),
        (HANDLE, handle("a", namespace="one"), "metadata.namespace"),
        (HANDLE, handle("a", labels={"a b": "c"}), r"metadata.labels: 'a b': can't be the name of a label"),
        (
            HANDLE,
            handle("a", annotations={"a b": "c"}),
            r"metadata.annotations: 'a b': can't be the name of an annotation",
        ),
    ],
)
async def test_wrong_metadata_is_refused(store: Store, kind: Kind[Any], value: Any, field: str) -> None:
    with pytest.raises(Refused, match=field):
        await store.create(kind, value)


async def test_what_the_kind_finds_wrong_is_refused(store: Store) -> None:
    def picky(value: IPAMHandle) -> list[Problem]:
        return [Problem("spec.block", 0, "is empty", "count")] if not value.spec.block else []

    kind = replace(HANDLE, problems=picky)
    created = await store.create(kind, handle("a"))
    empty = replace(created.value, spec=replace(created.value.spec, block={}))
    with pytest.raises(Refused, match=r"IPAMHandle/a is refused: spec\.block"):
        await store.update(kind, created, empty)
    with pytest.raises(Refused, match=r"spec\.block"):
        await store.create(kind, replace(empty, metadata=ObjectMeta(name="b")))
    assert await store.get(HANDLE, "a") == created


async def test_what_was_wrong_before_does_not_stand_in_the_way_of_another_change(store: Store) -> None:
    def picky(value: IPAMHandle) -> list[Problem]:
        return [Problem("spec.block", dict(value.spec.block), "is not empty", "empty it")] if value.spec.block else []

    kind = replace(HANDLE, problems=picky)
    old = await store.create(HANDLE, handle("a", finalizers=("one",)))
    free = replace(old.value, metadata=replace(old.value.metadata, finalizers=()))
    updated = await store.update(kind, old, free)
    assert updated.value.metadata.finalizers == ()
    with pytest.raises(Refused, match=r"spec\.block"):
        await store.update(kind, updated, counting(updated.value, 2))


async def test_update_counts_revision_always_and_generation_with_the_spec(store: Store) -> None:
    first = await store.create(HANDLE, handle("a"))
    second = await store.update(HANDLE, first, counting(first.value, 2))
    assert second.revision > first.revision
    assert second.uid == first.uid
    assert second.value.metadata.generation == 2
    third = await store.update(HANDLE, second, replace(second.value, metadata=ObjectMeta(name="a", labels={"x": "y"})))
    assert third.value.metadata.generation == 2
    assert third.value.metadata.creation_timestamp == first.value.metadata.creation_timestamp
    assert await store.get(HANDLE, "a") == third


async def test_an_update_that_changes_nothing_writes_nothing(store: Store) -> None:
    created = await store.create(HANDLE, handle("a"))
    assert await store.update(HANDLE, created, created.value) == created


async def test_an_object_cannot_be_renamed(store: Store) -> None:
    created = await store.create(HANDLE, handle("a"))
    with pytest.raises(Refused, match=r"metadata\.name: 'b'"):
        await store.update(HANDLE, created, handle("b"))


async def test_update_and_delete_of_what_changed_are_conflicts(store: Store) -> None:
    old = await store.create(HANDLE, handle("a"))
    await store.update(HANDLE, old, counting(old.value, 2))
    with pytest.raises(Conflict, match=rf"IPAMHandle/a .*{old.revision}"):
        await store.update(HANDLE, old, counting(old.value, 3))
    with pytest.raises(Conflict, match="IPAMHandle/a"):
        await store.delete(HANDLE, old)


async def test_update_and_delete_of_what_is_gone_are_not_found(store: Store) -> None:
    old = await store.create(HANDLE, handle("a"))
    await store.delete(HANDLE, old)
    with pytest.raises(NotFound):
        await store.update(HANDLE, old, counting(old.value, 2))
    with pytest.raises(NotFound):
        await store.delete(HANDLE, old)


async def test_an_object_made_anew_is_another_one(store: Store) -> None:
    old = await store.create(HANDLE, handle("a"))
    await store.delete(HANDLE, old)
    new = await store.create(HANDLE, handle("a"))
    assert new.uid != old.uid
    with pytest.raises(Conflict, match="read it again"):
        await store.update(HANDLE, old, counting(old.value, 2))
    with pytest.raises(Conflict):
        await store.delete(HANDLE, old)


async def test_of_two_clients_that_race_one_loses(store: Store, open_store: Another) -> None:
    other = await open_store()
    mine = await store.create(HANDLE, handle("a"))
    theirs = await other.get(HANDLE, "a")
    await other.update(HANDLE, theirs, counting(theirs.value, 2))
    with pytest.raises(Conflict):
        await store.update(HANDLE, mine, counting(mine.value, 3))
    assert (await store.get(HANDLE, "a")).value.spec.block == {"10.0.0.0/26": 2}


async def test_revisions_grow_over_all_kinds(store: Store) -> None:
    first = await store.create(HANDLE, handle("a"))
    second = await store.create(GLOBAL_SET, GlobalNetworkSet(metadata=ObjectMeta(name="one")))
    third = await store.update(HANDLE, first, counting(first.value, 2))
    assert first.revision < second.revision < third.revision


async def test_a_list_comes_in_pages_of_one_revision(store: Store) -> None:
    for n in range(7):
        await store.create(HANDLE, handle(f"h{n}"))
    sizes, revisions = [], set()
    async for page in store.list(HANDLE, page_size=3):
        sizes.append(len(page.items))
        revisions.add(page.revision)
        await store.create(HANDLE, handle(f"later{len(sizes)}"))
    assert sizes == [3, 3, 1]
    assert len(revisions) == 1
    assert len(await listed(store, HANDLE)) == 10


async def test_an_empty_list_is_one_page_from_which_a_watch_can_go_on(store: Store) -> None:
    (page,) = [page async for page in store.list(HANDLE)]
    assert page.items == ()
    await store.create(HANDLE, handle("a"))
    event = await anext(aiter(store.watch(HANDLE, page.revision)))
    assert event.object is not None
    assert event.object.key.name == "a"


async def test_a_list_filters_by_all_labels(store: Store) -> None:
    await store.create(SET, network_set("one", "both", app="web", tier="front"))
    await store.create(SET, network_set("one", "half", app="web"))
    await store.create(SET, network_set("one", "longer", app="webb", tier="front"))
    found = await listed(store, SET, labels={"app": "web", "tier": "front"})
    assert [s.key.name for s in found] == ["both"]
    old = found[0]
    await store.update(SET, old, replace(old.value, metadata=replace(old.value.metadata, labels={"app": "db"})))
    assert await listed(store, SET, labels={"tier": "front", "app": "web"}) == []
    assert [s.key.name for s in await listed(store, SET, labels={"app": "db"}, namespace="one")] == ["both"]


async def test_finalizers_keep_an_object_until_the_last_is_gone(store: Store) -> None:
    created = await store.create(HANDLE, handle("a", finalizers=("one", "two")))
    await store.delete(HANDLE, created)
    marked = await store.get(HANDLE, "a")
    assert marked.value.metadata.deletion_timestamp
    await store.delete(HANDLE, marked)
    assert await store.get(HANDLE, "a") == marked, "a second deletion changes nothing"
    one_left = replace(marked.value.metadata, finalizers=("two",))
    waiting = await store.update(HANDLE, marked, replace(marked.value, metadata=one_left))
    fresh = replace(one_left, finalizers=("two", "three"))
    with pytest.raises(Refused, match="three"):
        await store.update(HANDLE, waiting, replace(waiting.value, metadata=fresh))
    free = replace(one_left, finalizers=())
    await store.update(HANDLE, waiting, replace(waiting.value, metadata=free))
    with pytest.raises(NotFound):
        await store.get(HANDLE, "a")


async def test_an_object_that_cannot_be_decoded_is_left_out_and_said_once(
    store: Store, back_door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = await store.create(HANDLE, handle("good")), await store.create(HANDLE, handle("bad"))
    document = back_door.read(bad.key)
    document["spec"]["block"] = "none"
    back_door.write(bad.key, document)
    with caplog.at_level(logging.ERROR, "calipy.datastore"):
        assert await listed(store, HANDLE) == [good]
        assert await listed(store, HANDLE) == [good]
    assert len(caplog.records) == 1
    assert "IPAMHandle/bad" in caplog.text
    assert "spec.block" in caplog.text
    with pytest.raises(Refused, match="IPAMHandle/bad"):
        await store.get(HANDLE, "bad")


async def test_increments_of_many_clients_are_all_counted(store: Store, open_store: Another) -> None:
    await store.create(HANDLE, handle("a", count=0))

    async def increment(client: Store, times: int) -> None:
        while times:
            old = await client.get(HANDLE, "a")
            await asyncio.sleep(0)
            try:
                await client.update(HANDLE, old, counting(old.value, old.value.spec.block["10.0.0.0/26"] + 1))
                times -= 1
            except Conflict:
                pass

    async with asyncio.TaskGroup() as group:
        for client in [await open_store() for _ in range(4)]:
            group.create_task(increment(client, 25))
    assert (await store.get(HANDLE, "a")).value.spec.block == {"10.0.0.0/26": 100}
