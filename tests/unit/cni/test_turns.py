"""Turns."""

import asyncio

from calipy.cni.turns import Turns


async def test_one_after_another_for_one_key_and_none_is_left():
    turns, order = Turns(), []
    go = asyncio.Event()

    async def work(key, name):
        async with turns.of(key):
            order.append(f"{name} in")
            await go.wait()
            order.append(f"{name} out")

    async with asyncio.TaskGroup() as group:
        for key, name in (("a", "1"), ("a", "2"), ("b", "3")):
            group.create_task(work(key, name))
        await asyncio.sleep(0)
        assert order == ["1 in", "3 in"]
        go.set()
    assert order.index("1 out") < order.index("2 in")
    assert len(turns) == 0


async def test_who_leaves_the_queue_leaves_nothing():
    turns = Turns()
    async with turns.of("a"):
        waiter = asyncio.get_running_loop().create_future()

        async def wait():
            waiter.set_result(None)
            async with turns.of("a"):
                raise AssertionError

        async with asyncio.TaskGroup() as group:
            task = group.create_task(wait())
            await waiter
            task.cancel()
        assert len(turns) == 1
    assert len(turns) == 0
