"""The wait of a loop that has work when something happens, or at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time


async def until(event: asyncio.Event, deadline_s: float | None) -> None:
    """Until the event, which is taken, or the deadline (monotonic seconds; None = never)."""
    wait_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await event.wait()
    event.clear()
