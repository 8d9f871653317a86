"""What had to be put off is done again until nothing is left: releases while the store was away, half-made ADDs."""

from __future__ import annotations

import asyncio
import random

from calipy.cni.removals import Removals

FIRST_S, MOST_S = 1.0, 30.0
"""Delays between attempts: doubling, up to the second."""


def delay(attempt: int, chance: float) -> float:
    """Seconds before an attempt (from 0); `chance` in [0, 1) spreads those of many nodes over the upper half."""
    longest = min(MOST_S, FIRST_S * 2.0 ** min(attempt, 16))
    return longest * (0.5 + chance / 2)


async def replay(removals: Removals, reconnected: asyncio.Event) -> None:
    """Runs without end: once at the start for what an earlier agent left, and then whenever something is put off,
    until it is done. `reconnected` is set by others when the store is back: then at once."""
    attempt = 0
    while True:
        removals.put_off.clear()
        reconnected.clear()
        if await removals.replay() == 0:
            attempt = 0
            await removals.put_off.wait()
        try:
            async with asyncio.timeout(delay(attempt, random.random())):
                await reconnected.wait()
        except TimeoutError:
            attempt += 1
