"""The Node's condition NetworkUnavailable follows readiness, and the agent's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from calipy.datastore.sqlite import SQLiteStore
from calipy.node import availability
from calipy.node.availability import Availability, with_condition
from calipy.resources import nodes
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import Node, NodeCondition, NodeStatus

KUBELET = """{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
 "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "KubeletReady", "message": "posting ready status"}"""
READY = msgspec.json.decode(KUBELET, type=NodeCondition)
BORN = NodeCondition(type="NetworkUnavailable", status="True", reason="NoRouteCreated", last_transition_time="old")
UP, DOWN = "CalIPyIsUp", "CalIPyIsDown"


def node(*conditions: NodeCondition) -> Node:
    return Node(metadata=ObjectMeta(name="n1"), status=NodeStatus(conditions=conditions))


def told(found: Node) -> list[tuple[str, str, str | None]]:
    return [(each.status, each.reason, each.last_transition_time) for each in found.status.conditions]


def test_kubelets_conditions_are_decoded_whole() -> None:
    assert msgspec.json.decode(msgspec.json.encode(READY)) == msgspec.json.decode(KUBELET)


def test_one_condition_is_changed_and_the_others_stay() -> None:
    up = with_condition(node(BORN, READY), True, "m", "now")
    assert told(up) == [("False", UP, "now"), ("True", "KubeletReady", "2026-01-01T00:00:00Z")]
    assert up.status.conditions[1] is READY
    assert with_condition(up, True, "again", "later") is up
    assert told(with_condition(up, False, "m", "later"))[0] == ("True", DOWN, "later")
    assert told(with_condition(node(BORN), False, "m", "now")) == [("True", DOWN, "old")]
    assert told(with_condition(node(READY), True, "m", "now"))[1] == ("False", UP, "now")


class Case:
    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.problem = "the agent is starting"
        self.availability = Availability(store, "n1", lambda: self.problem)

    async def condition(self) -> NodeCondition | None:
        found = (await self.store.get(nodes.KIND, "n1")).value.status.conditions
        return next((each for each in found if each.type == "NetworkUnavailable"), None)

    async def until(self, reason: str) -> NodeCondition:
        async with asyncio.timeout(10):
            while (found := await self.condition()) is None or found.reason != reason:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.001)
        return found


@pytest.fixture
async def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    monkeypatch.setattr(availability, "LOOK_S", 0.005)
    monkeypatch.setattr(availability, "FIRST_LOOK_S", 0.001)
    store = await SQLiteStore.open(tmp_path / "store")
    await store.create(nodes.KIND, node(READY))
    yield Case(store)
    await store.close()


async def running(case: Case, course: Callable[[], object]) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(case.availability.run())
        await course()  # type: ignore[misc]
        task.cancel()


async def test_it_follows_readiness(case: Case) -> None:
    looks = 0

    def look() -> str:
        nonlocal looks
        looks += 1
        return case.problem

    case.availability = Availability(case.store, "n1", look)

    async def course() -> None:
        async with asyncio.timeout(10):
            while looks < 10:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.001)
        assert await case.condition() is None, "what isn't up yet is nobody's to take down"
        case.problem = ""
        found = await case.until(UP)
        assert (found.status, found.message) == ("False", "CalIPy is running on this node")
        revision = (await case.store.get(nodes.KIND, "n1")).revision
        case.problem, looks_before = "BGP: no session is up", looks
        found = await case.until(DOWN)
        assert looks - looks_before >= 3, "one look is none"
        assert (found.status, found.message) == ("True", "CalIPy is not ready on this node: BGP: no session is up")
        assert (await case.store.get(nodes.KIND, "n1")).revision == revision + 1
        case.problem = ""
        await case.until(UP)

    await running(case, course)
    assert (await case.store.get(nodes.KIND, "n1")).value.status.conditions[0] == READY


async def test_an_agent_that_ends_says_so_and_one_that_never_was_ready_does_not(case: Case) -> None:
    await case.availability.farewell()
    assert await case.condition() is None
    case.availability = Availability(case.store, "n1", lambda: case.problem)
    case.problem = ""

    async def course() -> None:
        await case.until(UP)
        await case.availability.farewell()
        found = await case.condition()
        assert found is not None
        assert (found.status, found.message) == ("True", "CalIPy is shutting down on this node")
        await asyncio.sleep(0.05)
        assert await case.condition() == found

    await running(case, course)


async def test_nobody_waits_long_for_a_farewell(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(availability, "FAREWELL_S", 0.01)
    case.problem = ""
    await running(case, lambda: case.until(UP))

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(availability.identity, "change", hang)
    await asyncio.wait_for(case.availability.farewell(), 5)
    assert caplog.messages == ["Node/n1: there was no time to write condition NetworkUnavailable"]


async def test_a_node_that_can_not_be_written_is_told_once_and_tried_again(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    stored = await case.store.get(nodes.KIND, "n1")
    await case.store.delete(nodes.KIND, stored)
    case.problem = ""

    async def course() -> None:
        async with asyncio.timeout(10):
            while not caplog.messages:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        await case.store.create(nodes.KIND, structs.replace(stored.value, metadata=ObjectMeta(name="n1")))
        await case.until(UP)

    await running(case, course)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("condition NetworkUnavailable can't be written: Node/n1")
