"""Waiting for several things at once, and for what tells nobody when it has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from calipy.console.failures import Failure

READY_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.05
T = TypeVar("T")


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    """All at once, their results in order; the first failure ends the rest."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return tuple(task.result() for task in tasks)


async def eventually(look: Callable[[], Awaitable[bool | str]], what: str, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Waits until `look` says True; other processes' states have no event to wait for, so it looks again and again.
    Raises Failure with `what` and the reason that `look` gave last."""
    end_s = time.monotonic() + timeout_s
    while (found := await look()) is not True:
        if time.monotonic() > end_s:
            reason = str(found or "it gives no reason")
            raise Failure(what, f"{reason} (after {timeout_s:g} s)", "see calipy lab logs NODE")
        await asyncio.sleep(_LOOK_S)
