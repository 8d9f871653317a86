"""Flows are flushed in rounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from calipy.agent.joints import FlushedFlows


class Table:
    """A flow table that takes its time."""

    def __init__(self) -> None:
        self.looks: list[list[str]] = []
        self.may = threading.Event()
        self.error: OSError | None = None
        self.idle = False

    def flush(self, addresses: Iterable[str]) -> None:
        self.looks.append(list(addresses))
        self.may.wait(10)
        if self.error is not None:
            raise self.error


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


async def test_who_waits_at_the_same_time_shares_a_look_and_who_comes_later_has_his_own(
    thread: ThreadPoolExecutor,
) -> None:
    table = Table()
    flows = FlushedFlows(table, thread)
    async with asyncio.TaskGroup() as group:
        for addresses in (["a"], ["b", "c"]):
            group.create_task(flows.flush(addresses))
        await asyncio.sleep(0)
        for addresses in (["d"], ["a"]):
            group.create_task(flows.flush(addresses))
        await asyncio.sleep(0)
        table.may.set()
    assert table.looks == [["a"], ["a", "b", "c", "d"]] or table.looks == [["a", "b", "c"], ["a", "d"]]


async def test_the_rest_of_a_round_goes_on_when_its_first_is_cancelled(thread: ThreadPoolExecutor) -> None:
    table = Table()
    flows = FlushedFlows(table, thread)
    async with asyncio.TaskGroup() as group:
        holder = group.create_task(flows.flush(["x"]))
        await asyncio.sleep(0)
        first, second = (group.create_task(flows.flush([name])) for name in "ab")
        await asyncio.sleep(0)
        holder.cancel()
        first.cancel()
        table.may.set()
    assert second.done()
    assert table.looks[-1] == ["a", "b"]


async def test_a_refusal_is_everybodys(thread: ThreadPoolExecutor) -> None:
    table = Table()
    table.may.set()
    table.error = OSError(1, "no")
    flows = FlushedFlows(table, thread)
    outcomes = await asyncio.gather(flows.flush(["a"]), flows.flush(["b"]), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["[Errno 1] no"] * 2
    table.error = None
    await flows.flush(["a"])


async def test_where_there_are_no_flows_nobody_waits(thread: ThreadPoolExecutor) -> None:
    table = Table()
    table.idle = True
    await FlushedFlows(table, thread).flush(["a"])
    assert table.looks == []


async def test_all_of_a_round_go_on_in_the_same_turn(thread: ThreadPoolExecutor) -> None:
    table = Table()
    flows, turn, ended = FlushedFlows(table, thread), 0, []

    async def flush(name: str) -> None:
        await flows.flush([name])
        ended.append(turn)

    async with asyncio.TaskGroup() as group:
        group.create_task(flush("first"))
        await asyncio.sleep(0)
        waiting = [group.create_task(flush(name)) for name in "abcdef"]
        await asyncio.sleep(0)
        table.may.set()
        while not all(task.done() for task in waiting):
            turn += 1
            await asyncio.sleep(0)
    assert len(set(ended[1:])) <= 2  # who led, and the others
