"""Files on the host: written, and where they can't be, told, shown and tried again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from calipy import files
from calipy.agent import host_files
from calipy.agent.host_files import HostFiles


@pytest.fixture
async def kept() -> AsyncIterator[HostFiles]:
    with ThreadPoolExecutor(1, "kernel") as thread:
        found = HostFiles(thread)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(found.run())
            yield found
            task.cancel()


async def test_what_is_wanted_is_written_on_the_thread(
    kept: HostFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, threads = files.put, []

    def noting(path: Path, data: bytes, *, mode: int = 0) -> bool:
        threads.append(threading.current_thread().name)
        return put(path, data, mode=mode)

    monkeypatch.setattr(files, "put", noting)
    kept.want(tmp_path / "a" / "mtu", b"1450\n")
    kept.want(tmp_path / "conflist", b"{}", mode=0o600)
    await kept.tried()
    assert (tmp_path / "a" / "mtu").read_bytes() == b"1450\n"
    assert (tmp_path / "conflist").stat().st_mode & 0o777 == 0o600
    kept.want(tmp_path / "a" / "mtu", b"1450\n")
    kept.want(tmp_path / "a" / "mtu", b"1500\n")
    await kept.tried()
    assert (tmp_path / "a" / "mtu").read_bytes() == b"1500\n"
    assert kept.problem == ""
    assert [name.partition("_")[0] for name in threads] == ["kernel"] * 3, "and what is so already is left alone"


async def test_one_that_can_not_be_written_is_told_once_and_keeps_no_other_waiting(
    kept: HostFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_files, "_AGAIN_S", 0.01)
    attempts = asyncio.Semaphore(0)
    loop, put = asyncio.get_running_loop(), files.put

    def noting(path: Path, data: bytes, *, mode: int = 0) -> bool:
        loop.call_soon_threadsafe(attempts.release)
        return put(path, data, mode=mode)

    monkeypatch.setattr(files, "put", noting)
    (tmp_path / "in").write_text("the way")
    kept.want(tmp_path / "in" / "nodename", b"n1\n")
    kept.want(tmp_path / "mtu", b"1450\n")
    await kept.tried()
    assert (tmp_path / "mtu").read_bytes() == b"1450\n"
    said = f"{tmp_path}/in/nodename can't be written: File exists; it is tried again"
    assert kept.problem == said
    async with asyncio.timeout(10):
        for _ in range(5):
            await attempts.acquire()
    assert caplog.messages == [said]
    (tmp_path / "in").unlink()
    async with asyncio.timeout(10):
        while kept.problem:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
    assert (tmp_path / "in" / "nodename").read_bytes() == b"n1\n"


async def test_a_file_that_somebody_else_keeps(kept: HostFiles, caplog: pytest.LogCaptureFixture) -> None:
    for problem in ("ready can't be written", "ready can't be written", ""):
        kept.report(Path("ready"), problem)
        assert kept.problem == problem
    assert caplog.messages == ["ready can't be written"]
