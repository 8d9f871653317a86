"""The loop's lateness: a slice that holds it while something is at work is seen; idle, one look a second is all."""

from __future__ import annotations

import asyncio
import time

from calipy.agent.clock import Lag
from calipy.telemetry import Heartbeat, Pulse


async def test_a_slice_that_holds_the_loop_is_seen() -> None:
    looks: list[float] = []
    lag, pulse = Lag(looks.append, Heartbeat()), Pulse()
    lag.watch(pulse)
    with pulse.turn():
        time.sleep(0.06)  # noqa: ASYNC251  the slice that is too long
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert max(looks) >= 0.04
    seen = len(looks)
    await asyncio.sleep(0.05)
    assert len(looks) == seen


async def test_two_at_work_at_once_are_looked_at_once() -> None:
    looks: list[float] = []
    lag, one, other = Lag(looks.append, Heartbeat()), Pulse(), Pulse()
    lag.watch(one)
    lag.watch(other)
    with one.turn():
        with other.turn():
            await asyncio.sleep(0.05)
        so_far = len(looks)
        assert 1 <= so_far <= 10
        await asyncio.sleep(0.05)
    assert so_far < len(looks) <= 20


async def test_idle_it_beats_once_a_second() -> None:
    looks: list[float] = []
    heartbeat = Heartbeat()
    lag = Lag(looks.append, heartbeat)
    running = asyncio.get_running_loop().create_task(lag.run())
    await asyncio.sleep(1.1)
    running.cancel()
    assert len(looks) == 1
    assert heartbeat.silent_s() < 0.5
