"""Commands on the loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from calipy import children


async def test_what_it_says_and_how_it_ends() -> None:
    ended = await children.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=10)
    assert ended == children.Ended(3, b"out\nerr\n")
    assert (await children.run(["sh", "-c", "kill -9 $$"], timeout_s=10)).status == -signal.SIGKILL
    assert (await children.run(["env"], timeout_s=10, env={"A": "1"})).output == b"A=1\n"


async def test_more_than_a_pipe_holds() -> None:
    ended = await children.run(["head", "-c", "1000000", "/dev/zero"], timeout_s=10)
    assert len(ended.output) == 1_000_000


async def test_one_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        await children.run(["no-such-command"], timeout_s=10)


@pytest.mark.parametrize("way", ["time is up", "cancelled"])
async def test_one_that_is_waited_for_no_more_has_ended(tmp_path: Path, way: str) -> None:
    threads, descriptors = threading.enumerate(), os.listdir("/proc/self/fd")
    os.mkfifo(tmp_path / "pid")
    pid_told = os.open(tmp_path / "pid", os.O_RDONLY | os.O_NONBLOCK)
    up = asyncio.Event()
    asyncio.get_running_loop().add_reader(pid_told, up.set)

    async def wait() -> None:
        argv = ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"]
        with pytest.raises(TimeoutError if way == "time is up" else asyncio.CancelledError):
            await children.run(argv, timeout_s=0.3 if way == "time is up" else 60)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(wait())
        await up.wait()
        assert threading.enumerate() == threads
        if way == "cancelled":
            task.cancel()
    asyncio.get_running_loop().remove_reader(pid_told)
    pid = int(os.read(pid_told, 99))
    os.close(pid_told)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert os.listdir("/proc/self/fd") == descriptors
