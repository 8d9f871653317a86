"""Commands that are cancelled."""

from __future__ import annotations

import asyncio
import time

import pytest

from calipy.lab.executions import execute


@pytest.mark.parametrize("turns", range(1, 6))
async def test_a_command_is_ended_with_its_children_whenever_it_is_cancelled(turns: int) -> None:
    """While asyncio still plugs its pipes in, too: alone it ends the command only, and waits for its child's end."""
    task = asyncio.get_running_loop().create_task(execute(["sh", "-c", "cat; true"]))
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.03)  # noqa: ASYNC251 (the shell starts its child, and we have no turn)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
    assert task.cancelled()
