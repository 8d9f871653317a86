"""Commands run to their end, and waiting for processes that are not ours to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

TIMED_OUT = 124
"""The status of a command that was killed because its time was up (timeout(1) says the same)."""


class Completed(Struct, frozen=True, gc=False):
    """A command that has ended. `status` is negative where a signal ended it."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    @property
    def complaint(self) -> str:
        """What it said about its failure."""
        return (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")


async def execute(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: bytes = b"", timeout_s: float | None = 30.0
) -> Completed:
    """Runs a command of the host to its end. Past its time (None = it has all), or when cancelled, it and its children
    are killed. `env`: None = this process's. Raises FileNotFoundError if there is no such program."""
    pipe = asyncio.subprocess.PIPE
    # A task of its own that outlives our cancellation: it is awaited in any case.
    starting = asyncio.get_running_loop().create_task(
        asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, stderr=pipe, env=None if env is None else dict(env), start_new_session=True
        )
    )
    try:
        # asyncio waits for ever when it is cancelled while it plugs a new process's pipes in.
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _kill(await starting)
        raise
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError:
        return Completed(TIMED_OUT, b"", f"killed after {timeout_s:g} s".encode())
    finally:
        if process.returncode is None:
            await _kill(process)
    assert process.returncode is not None
    return Completed(process.returncode, stdout, stderr)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Ends a process and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()


def started(pid: int) -> int | None:
    """When a process was started (clock ticks since boot, proc(5) stat field 22); None if there is none. With it a
    process id that has come round again is told from the one that was meant."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


async def readable(descriptor: int) -> None:
    """Waits until a descriptor can be read; a pidfd can when its process has ended."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)
