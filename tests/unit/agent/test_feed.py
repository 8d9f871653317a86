"""The feed judges the store's news at the edge: a bad object is refused with its reason, the last good one stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from calipy.agent.feed import Feed
from calipy.datastore.batches import Batch
from calipy.datastore.stores import Event as StoreEvent
from calipy.datastore.stores import Stored
from calipy.felix.calc.world import Bookmark, Event, ResourceGone, ResourcePut
from calipy.resources import felix_configurations, ip_pools, nodes
from calipy.resources.metadata import Key, Kind
from tests.unit.resources.objects import made

POOL, FELIX, NODE = ip_pools.KIND, felix_configurations.KIND, nodes.KIND


class News:
    """What the store says, in the order of its telling; a batch for each `flush`."""

    def __init__(self) -> None:
        self.unreadable: Mapping[Key, str] = {}
        self.revision = 0
        self._waiting: list[StoreEvent[Any]] = []
        self._batches: list[Batch] = []

    def put(self, kind: Kind[Any], name: str, spec: Mapping[str, Any], *, uid: str = "", born: int = 0) -> None:
        self.revision += 1
        created = f"2026-01-01T00:00:{born:02d}Z"
        value = made(kind, dict(spec), name, uid=uid or f"{name}-uid", creationTimestamp=created)
        stored = Stored(key=kind.key(value), uid=value.metadata.uid, revision=self.revision, value=value)
        self._waiting.append(StoreEvent(type="put", revision=self.revision, object=stored))

    def delete(self, kind: Kind[Any], name: str) -> None:
        self.revision += 1
        value = made(kind, {"cidr": "10.0.0.0/8"} if kind is POOL else {}, name)
        stored = Stored(key=kind.key(value), uid="", revision=self.revision, value=value)
        self._waiting.append(StoreEvent(type="deleted", revision=self.revision, object=stored))

    def flush(self, *, in_sync: bool = True, since_s: float = 0.0, **revisions: int) -> None:
        events = tuple(self._waiting)
        self._batches.append(Batch(events=events, revisions=revisions, in_sync=in_sync, since_s=since_s))
        self._waiting.clear()

    async def batches(self) -> AsyncIterator[Batch]:
        for batch in self._batches:
            yield batch
        self._batches.clear()


class Follower:
    """A feed and what it has passed on."""

    def __init__(self) -> None:
        self.news = News()
        self.feed = Feed(self.news, "n1")
        self.events: list[Event] = []

    async def told(self, **revisions: int) -> list[Event]:
        """The events of what was said since the last call, bookmarks aside."""
        self.news.flush(**revisions)
        self.events.clear()
        await self.feed.run(self.events.extend)
        return [event for event in self.events if not isinstance(event, Bookmark)]

    def pools(self) -> dict[str, str]:
        return {pool.metadata.name: pool.spec.cidr for pool in self.feed.pools_in_force()}

    def refused(self) -> dict[str, str]:
        return {str(key): reason for key, reason in self.feed.refused.items()}


@pytest.fixture
def follower() -> Follower:
    return Follower()


def brief(events: list[Event]) -> list[str]:
    return [
        f"{'put' if isinstance(event, ResourcePut) else 'gone'} {event.key} {event.revision}"
        for event in events
        if isinstance(event, ResourcePut | ResourceGone)
    ]


async def test_what_is_right_is_passed_on_in_the_stores_order_and_bookmarks_with_it(follower: Follower) -> None:
    follower.news.put(FELIX, "default", {"vxlanMTU": 1450})
    follower.news.put(NODE, "n1", {})
    follower.news.put(POOL, "a", {"cidr": "10.0.0.0/16"})
    assert brief(await follower.told(Node=9, IPPool=7)) == [
        "put FelixConfiguration/default 1",
        "put Node/n1 2",
        "put IPPool/a 3",
    ]
    assert [event for event in follower.events if isinstance(event, Bookmark)] == [
        Bookmark("Node", 9),
        Bookmark("IPPool", 7),
    ]
    assert follower.feed.in_sync.is_set()
    assert follower.feed.node() is not None


async def test_who_measures_hears_when_the_store_delivered_what_moves_once_in_sync(follower: Follower) -> None:
    heard: list[tuple[list[str], float]] = []
    follower.feed.on_news = lambda events, since_s: heard.append((brief(list(events)), since_s))
    follower.news.put(NODE, "n1", {})
    follower.news.flush(since_s=1.0)
    await follower.feed.run(lambda events: None)
    follower.news.put(NODE, "n2", {})
    follower.news.flush(since_s=2.0)
    await follower.feed.run(lambda events: None)
    assert heard == [(["put Node/n2 2"], 2.0)]


async def test_a_bad_object_is_refused_and_told_and_its_last_good_version_stays(follower: Follower) -> None:
    follower.news.put(FELIX, "default", {"vxlanMTU": 1450})
    await follower.told()
    follower.news.put(FELIX, "default", {"vxlanMTU": -1})
    assert await follower.told() == []
    assert follower.refused() == {
        "FelixConfiguration/default": "FelixConfiguration/default is refused: spec.vxlanMTU: -1: is not allowed; "
        "write bytes, 0 (detect) to 65535; its last good version stays in force"
    }
    assert [configuration.spec for configuration in follower.feed.all(FELIX)] == [{"vxlanMTU": 1450}]
    follower.news.put(FELIX, "default", {"vxlanMTU": 1400})
    assert brief(await follower.told()) == ["put FelixConfiguration/default 3"]
    assert follower.refused() == {}


async def test_a_bad_object_that_never_was_good_is_left_out(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    follower.news.put(POOL, "a", {"cidr": "10.0.0.1/16"})
    assert await follower.told() == []
    assert follower.refused()["IPPool/a"].endswith("write 10.0.0.0/16; it is left out")
    assert caplog.messages == [follower.refused()["IPPool/a"]]
    follower.news.delete(POOL, "a")
    assert await follower.told() == []
    assert follower.refused() == {}


async def test_a_refused_object_that_is_deleted_is_gone(follower: Follower) -> None:
    follower.news.put(FELIX, "default", {"vxlanMTU": 1450})
    follower.news.put(FELIX, "default", {"vxlanMTU": "big"})
    await follower.told()
    follower.news.delete(FELIX, "default")
    assert brief(await follower.told()) == ["gone FelixConfiguration/default 3"]
    assert (follower.refused(), follower.feed.all(FELIX)) == ({}, ())


CHANGED = [({"cidr": "10.1.0.0/16"}, "spec.cidr"), ({"cidr": "10.0.0.0/16", "blockSize": 28}, "spec.blockSize")]


@pytest.mark.parametrize(("spec", "field"), CHANGED)
async def test_what_cannot_change_keeps_the_old_pool_in_force(
    follower: Follower, spec: dict[str, Any], field: str
) -> None:
    follower.news.put(POOL, "a", {"cidr": "10.0.0.0/16"})
    await follower.told()
    follower.news.put(POOL, "a", spec)
    assert await follower.told() == []
    assert follower.pools() == {"a": "10.0.0.0/16"}
    assert f"IPPool/a is refused: {field}: " in follower.refused()["IPPool/a"]


async def test_a_pool_that_was_deleted_and_made_anew_may_be_another(follower: Follower) -> None:
    follower.news.put(POOL, "a", {"cidr": "10.0.0.0/16"}, uid="one")
    await follower.told()
    follower.news.put(POOL, "a", {"cidr": "10.1.0.0/16"}, uid="two")
    assert brief(await follower.told()) == ["put IPPool/a 2"]
    assert follower.pools() == {"a": "10.1.0.0/16"}
    follower.news.put(POOL, "a", {"cidr": "wrong"}, uid="three")
    assert brief(await follower.told()) == ["gone IPPool/a 3"]
    assert follower.pools() == {}
    assert "it is left out" in follower.refused()["IPPool/a"]


async def test_of_two_pools_that_overlap_the_older_is_in_force_whoever_comes_first(follower: Follower) -> None:
    follower.news.put(POOL, "young", {"cidr": "10.0.1.0/24"}, born=2)
    follower.news.put(POOL, "old", {"cidr": "10.0.0.0/16"}, born=1)
    assert brief(await follower.told()) == ["put IPPool/old 2"]
    assert follower.refused() == {
        "IPPool/young": "IPPool/young is refused: spec.cidr: '10.0.1.0/24': overlaps 10.0.0.0/16 of IPPool/old, "
        "which is older; choose a range of its own; it is left out"
    }
    assert [(pool.metadata.name, pool.hindrance) for pool in follower.feed.pools()] == [
        ("old", ""),
        ("young", "can't be drawn from: 10.0.1.0/24 overlaps 10.0.0.0/16 of IPPool/old"),
    ]
    follower.news.delete(POOL, "old")
    assert brief(await follower.told()) == ["gone IPPool/old 3", "put IPPool/young 1"]
    assert (follower.pools(), follower.refused()) == ({"young": "10.0.1.0/24"}, {})
    follower.news.put(POOL, "old", {"cidr": "10.0.0.0/16"}, born=1, uid="again")
    assert brief(await follower.told(IPPool=9)) == ["gone IPPool/young 9", "put IPPool/old 4"]


async def test_a_pool_that_waits_for_an_overlap_to_end_takes_its_newest_version(follower: Follower) -> None:
    follower.news.put(POOL, "old", {"cidr": "10.0.0.0/16"}, born=1)
    follower.news.put(POOL, "young", {"cidr": "10.0.1.0/24"}, born=2)
    follower.news.put(POOL, "young", {"cidr": "10.0.1.0/24", "disabled": True}, born=2)
    await follower.told()
    follower.news.delete(POOL, "old")
    await follower.told()
    assert [pool.spec.disabled for pool in follower.feed.pools()] == [True]


async def test_what_cannot_be_decoded_is_among_the_refused(follower: Follower) -> None:
    follower.news.unreadable = {Key("IPPool", "b"): "IPPool/b is refused: spec.cidr: '': is missing"}
    follower.news.put(POOL, "a", {"cidr": "wrong"})
    await follower.told()
    assert sorted(follower.refused()) == ["IPPool/a", "IPPool/b"]


async def test_listeners_hear_of_kinds_only_once_in_sync(follower: Follower) -> None:
    heard: list[frozenset[str]] = []
    follower.feed.listen(heard.append)
    follower.news.put(NODE, "n1", {})
    follower.news.flush(in_sync=False)
    assert not follower.feed.in_sync.is_set()
    follower.news.put(POOL, "a", {"cidr": "10.0.0.0/16"})
    await follower.told()
    assert heard == [frozenset({"IPPool"})]


async def test_a_turn_of_the_feed_is_a_sign_of_life(follower: Follower) -> None:
    silent: list[float] = []
    follower.news.put(NODE, "n1", {})
    follower.news.flush()
    turns: list[float] = []
    follower.feed.pulse.ended = turns.append
    await follower.feed.run(lambda events: silent.append(follower.feed.pulse.silent_s()))
    assert (len(silent), len(turns), follower.feed.pulse.silent_s()) == (1, 1, 0.0)
    assert silent[0] > 0.0


async def test_what_all_gives_is_put_together_once_for_each_change(follower: Follower) -> None:
    assert follower.feed.all(FELIX) == ()
    follower.news.put(FELIX, "default", {"vxlanMTU": 1450})
    follower.news.put(POOL, "a", {"cidr": "10.0.0.0/16"})
    await follower.told()
    first = follower.feed.all(FELIX)
    assert [value.metadata.name for value in first] == ["default"]
    follower.news.put(NODE, "n1", {})
    await follower.told()
    assert follower.feed.all(FELIX) is first
    assert follower.pools() == {"a": "10.0.0.0/16"}
    follower.news.put(FELIX, "node.n1", {})
    follower.news.put(POOL, "b", {"cidr": "10.1.0.0/16"})
    await follower.told()
    assert [value.metadata.name for value in follower.feed.all(FELIX)] == ["default", "node.n1"]
    assert follower.pools() == {"a": "10.0.0.0/16", "b": "10.1.0.0/16"}
    follower.news.delete(FELIX, "default")
    follower.news.delete(POOL, "a")
    await follower.told()
    assert [value.metadata.name for value in follower.feed.all(FELIX)] == ["node.n1"]
    assert follower.pools() == {"b": "10.1.0.0/16"}


async def test_the_newest_change_of_a_kind_is_an_objects_not_the_stores(follower: Follower) -> None:
    follower.news.put(POOL, "a", {"cidr": "10.0.0.0/16"})
    follower.news.put(POOL, "b", {"cidr": "no"})
    await follower.told(IPPool=7, Node=9)
    assert follower.feed.newest == {"IPPool": 2}
    follower.news.delete(POOL, "b")
    await follower.told(IPPool=20)
    assert follower.feed.newest == {"IPPool": 3}
