"""Putting off, and doing it again."""

import asyncio

from calipy.cni import releases


def test_delays_grow_and_are_spread():
    assert [releases.delay(n, 0) for n in range(7)] == [0.5, 1, 2, 4, 8, 15, 15]
    assert releases.delay(100, 0.999) < releases.MOST_S
    assert releases.delay(0, 0.5) == 0.75


async def until(condition):
    """Turns of the loop until something is so."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(condition)


async def test_left_from_before_and_put_off_later(world, killed):
    world.breaks["route"] = killed
    try:
        await world.add("c1", pod="shop/1")
    except type(killed):
        world.start()
    reconnected = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(releases.replay(world.removals, reconnected))
        await until(lambda: not world.left())
        await world.add("c2", pod="shop/2")
        world.store_away = True
        await world.delete("c2", pod="shop/2")
        assert world.allocations
        world.store_away = False
        await until(lambda: reconnected.set() or not world.left())
        task.cancel()
