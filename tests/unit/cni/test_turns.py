"""Turns."""

import asyncio

from calipy.cni.turns import Gate, Turns


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


async def _enter(gate, name, inside, go):
    async with gate.passed():
        inside.append(name)
        await go.wait()


async def test_a_gate_lets_a_few_in_at_a_time_in_their_order():
    gate, inside = Gate(2, 30), []
    gates = {name: asyncio.Event() for name in "abcd"}
    async with asyncio.TaskGroup() as group:
        for name, go in gates.items():
            group.create_task(_enter(gate, name, inside, go))
        for _ in range(5):
            await asyncio.sleep(0)
        assert inside == ["a", "b"]
        gates["b"].set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert inside == ["a", "b", "c"]
        for go in gates.values():
            go.set()
    assert inside == ["a", "b", "c", "d"]


async def test_one_who_is_stuck_inside_keeps_nobody_out_for_long():
    gate, inside, go = Gate(1, 0.001), [], asyncio.Event()
    async with asyncio.TaskGroup() as group:
        stuck = group.create_task(_enter(gate, "stuck", inside, go))
        await asyncio.sleep(0)
        done = asyncio.Event()
        done.set()
        await _enter(gate, "next", inside, done)
        await _enter(gate, "another", inside, done)
        assert inside == ["stuck", "next", "another"]
        stuck.cancel()


async def test_who_leaves_a_gates_queue_leaves_no_place_taken():
    gate, inside, go = Gate(1, 30), [], asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_enter(gate, "first", inside, go))
        await asyncio.sleep(0)
        waiting = group.create_task(_enter(gate, "second", inside, go))
        await asyncio.sleep(0)
        waiting.cancel()
        go.set()
    await _enter(gate, "third", inside, go)
    assert inside == ["first", "third"]
