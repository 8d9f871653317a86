"""One agent a node: the second waits, says for whom, and takes over."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from calipy.agent import alone as module
from calipy.agent.alone import Lock, alone


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)


async def had(path: Path, tell: Callable[[str], object]) -> Lock:
    lock = Lock(path)
    try:
        await alone(lock, tell)
    except BaseException:
        lock.close()
        raise
    return lock


def signature() -> str:
    command = Path("/proc/self/cmdline").read_text().replace("\0", " ").strip()
    return f"{os.getpid()} {command}\n"


async def test_the_second_waits_and_takes_over_and_the_third_is_told_of_the_second(tmp_path: Path) -> None:
    path, told = tmp_path / "run" / "agent.lock", asyncio.Queue[str]()
    first = await asyncio.wait_for(had(path, told.put_nowait), 5)
    assert path.stat().st_mode & 0o777 == 0o600
    assert told.empty()
    path.write_text(f"4711 calipy agent {'x' * 3000}\n")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        second = group.create_task(had(path, told.put_nowait))
        for _ in range(2):
            assert await told.get() == (
                f"another agent is alive on this node, process 4711 (calipy agent {'x' * 3000}): "
                f"it holds {path}; waiting for its end"
            )
        assert not second.done()
        first.close()
        await second
    assert path.read_text() == signature()
    second.result().close()


async def test_who_gives_up_waiting_holds_nothing(tmp_path: Path) -> None:
    told = asyncio.Queue[str]()
    first = await had(tmp_path / "x", told.put_nowait)
    descriptors = os.listdir("/proc/self/fd")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(had(tmp_path / "x", told.put_nowait))
        await told.get()
        waiting.cancel()
    assert os.listdir("/proc/self/fd") == descriptors
    first.close()
    (await asyncio.wait_for(had(tmp_path / "x", told.put_nowait), 5)).close()


async def test_on_a_full_disk_the_lock_holds_unsigned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    told = asyncio.Queue[str]()
    first = await had(tmp_path / "x", told.put_nowait)
    assert caplog.messages == [
        f"{tmp_path}/x can't be signed: No space left on device; whoever waits for it won't know for whom"
    ]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(had(tmp_path / "x", told.put_nowait))
        assert "another agent is alive on this node, which has not yet signed its lock: " in await told.get()
        waiting.cancel()
    first.close()
