"""A consumer that applies a replica's batches knows what the replica knows, whenever it takes them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from calipy.datastore.batches import Batch, Replica
from calipy.datastore.stores import Event, Stored
from calipy.resources.metadata import Key, ObjectMeta
from calipy.resources.namespaces import Namespace


def stored(name: str, revision: int, uid: str = "u") -> Stored[Any]:
    value = Namespace(metadata=ObjectMeta(name=name))
    return Stored(key=Key("Namespace", name), uid=uid, revision=revision, value=value)


def put(name: str, revision: int, uid: str = "u") -> Event[Any]:
    return Event(type="put", revision=revision, object=stored(name, revision, uid))


def deleted(name: str, revision: int) -> Event[Any]:
    return Event(type="deleted", revision=revision, object=stored(name, revision))


def replica(*events: Event[Any]) -> Replica:
    made = Replica(["Namespace"])
    for event in events:
        made.apply("Namespace", event)
    return made


def told(batch: Batch) -> list[tuple[str, str, int]]:
    return [(e.type, e.object.key.name, e.revision) for e in batch.events if e.object]


steps = st.lists(st.sampled_from(["put a", "put b", "put c", "del a", "del b", "del c", "take", "list a", "list a b"]))


@given(steps)
def test_batches_lead_to_the_replicas_state_and_hold_each_object_once(story: list[str]) -> None:
    made, world = Replica(["Namespace"]), dict[Key, Stored[Any]]()
    for revision, step in enumerate([*story, "take"], start=1):
        verb, *names = step.split()
        if verb == "put":
            made.apply("Namespace", put(names[0], revision))
        elif verb == "del":
            made.apply("Namespace", deleted(names[0], revision))
        elif verb == "list":
            listed = {s.key: s for s in (stored(name, revision) for name in names)}
            made.replace("Namespace", listed, made.vanished("Namespace", listed), revision)
        else:
            batch = made.take()
            keys = [e.object.key for e in batch.events if e.object]
            assert len(keys) == len(set(keys))
            assert [e.revision for e in batch.events] == sorted(e.revision for e in batch.events)
            for event in batch.events:
                assert event.object
                if event.type == "put":
                    world[event.object.key] = event.object
                else:
                    assert world.pop(event.object.key), "a deletion of what was never told"
    assert world == made.objects("Namespace")


def test_a_known_revision_is_not_told_again() -> None:
    made = replica(put("a", 1), put("b", 2))
    made.take()
    same = {s.key: s for s in (stored("a", 1), stored("b", 5))}
    made.replace("Namespace", same, (), 5)
    assert told(made.take()) == [("put", "b", 5)]
    made.apply("Namespace", put("b", 4))
    assert told(made.take()) == []


def test_a_new_object_of_the_same_name_is_told() -> None:
    made = replica(put("a", 5))
    made.take()
    new = stored("a", 5, uid="another")
    made.replace("Namespace", {new.key: new}, (), 5)
    assert told(made.take()) == [("put", "a", 5)]


def test_vanished_objects_are_deleted_at_the_listings_revision() -> None:
    made = replica(put("a", 1))
    made.take()
    made.replace("Namespace", {}, made.vanished("Namespace", {}), 9)
    assert told(made.take()) == [("deleted", "a", 9)]


def test_a_restored_store_leads_back() -> None:
    made = replica(put("a", 100))
    old = stored("a", 3)
    made.replace("Namespace", {old.key: old}, (), 7)
    assert made.revision("Namespace") == 7
    assert told(made.take()) == [("put", "a", 3)]


def test_a_bookmark_advances_the_revision_alone() -> None:
    made = replica(Event(type="bookmark", revision=7))
    batch = made.take()
    assert (batch.events, dict(batch.revisions)) == ((), {"Namespace": 7})


def test_in_sync_once_every_kind_is_listed() -> None:
    made = Replica(["Namespace", "Pod"])
    made.replace("Namespace", {}, (), 1)
    assert not made.take().in_sync
    made.replace("Pod", {}, (), 1)
    assert made.take().in_sync


def test_what_comes_and_goes_untold_leaves_nothing_behind() -> None:
    made = replica(*(event for n in range(9) for event in (put(f"n{n}", 2 * n + 1), deleted(f"n{n}", 2 * n + 2))))
    assert told(made.take()) == []
