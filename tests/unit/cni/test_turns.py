"""Turns."""

import asyncio

import pytest

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


async def test_two_keys_are_held_together_and_let_go_together():
    turns, order = Turns(), []

    async def work(name, *keys):
        async with turns.of(*keys):
            order.append(name)

    async with asyncio.TaskGroup() as group, turns.of("a"):
        group.create_task(work("b and a", "b", "a"))
        await asyncio.sleep(0)
        group.create_task(work("b", "b"))
        group.create_task(work("c twice", "c", "c"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert order == ["c twice"]
    assert order == ["c twice", "b and a", "b"]
    assert len(turns) == 0


@pytest.mark.parametrize("turns_of_the_loop", range(4))
async def test_who_is_cancelled_as_its_turn_comes_passes_it_on(turns_of_the_loop):
    turns, order = Turns(), []

    async def work(name):
        async with turns.of("a", name):
            order.append(name)

    async with asyncio.TaskGroup() as group:
        async with turns.of("a"):
            first = group.create_task(work("first"))
            group.create_task(work("second"))
            await asyncio.sleep(0)
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        first.cancel()
    assert order[-1] == "second"
    assert len(turns) == 0


async def test_who_goes_while_it_waits_for_its_second_key_lets_go_of_the_first():
    turns = Turns()
    async with asyncio.TaskGroup() as group, turns.of("b"):
        waiting = group.create_task(turns.of("a", "b").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
    async with asyncio.timeout(1), turns.of("a", "b"):
        pass


async def _enter(gate, name, inside, go):
    place = await gate.enter()
    try:
        inside.append(name)
        await go.wait()
    finally:
        gate.leave(place)


async def _turn_over():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_gate_lets_a_group_in_when_the_one_before_is_out():
    gate, inside = Gate(2, 30), []
    gates = {name: asyncio.Event() for name in "abcd"}
    async with asyncio.TaskGroup() as group:
        for name, go in gates.items():
            group.create_task(_enter(gate, name, inside, go))
        await _turn_over()
        assert inside == ["a"]  # nobody else was there yet
        gates["a"].set()
        await _turn_over()
        assert inside == ["a", "b", "c"]
        gates["c"].set()
        await _turn_over()
        assert inside == ["a", "b", "c"]
        gates["b"].set()
        await _turn_over()
        assert inside == ["a", "b", "c", "d"]
        gates["d"].set()
    await _enter(gate, "e", inside, gates["d"])
    assert inside[-1] == "e"


async def test_a_group_that_is_stuck_inside_keeps_nobody_out_for_long():
    gate, inside, go = Gate(1, 0.001), [], asyncio.Event()
    async with asyncio.TaskGroup() as group:
        stuck = group.create_task(_enter(gate, "stuck", inside, go))
        await asyncio.sleep(0)
        done = asyncio.Event()
        done.set()
        async with asyncio.timeout(1):  # else it would wait for ever
            await _enter(gate, "next", inside, done)
            await _enter(gate, "another", inside, done)
        assert inside == ["stuck", "next", "another"]
        stuck.cancel()
    async with asyncio.timeout(1):
        await _enter(gate, "last", inside, done)


@pytest.mark.parametrize("turns_of_the_loop", range(4))
async def test_who_leaves_a_gates_queue_leaves_no_place_taken(turns_of_the_loop):
    gate, inside, go = Gate(1, 30), [], asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_enter(gate, "first", inside, go))
        await asyncio.sleep(0)
        waiting = group.create_task(_enter(gate, "second", inside, go))
        await asyncio.sleep(0)
        go.set()
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        waiting.cancel()
    async with asyncio.timeout(1):
        await _enter(gate, "third", inside, go)
    assert (inside[0], inside[-1]) == ("first", "third")
