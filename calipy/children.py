"""Commands run to their end on the event loop, without a thread that waits for each: asyncio's own kind of child takes
one (ThreadedChildWatcher, Python 3.11)."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence

from msgspec import Struct


class Ended(Struct, frozen=True, gc=False):
    """A command that has ended: its exit status, or minus the signal; what it wrote to both of its outputs."""

    status: int
    output: bytes


async def run(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Ended:
    """Runs a command that reads nothing; `env` None = this process's. Raises TimeoutError where it takes longer, and
    OSError where it can't be started. However this ends, the command has ended too."""
    output = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        child = _start(argv, output, env)
        try:
            async with asyncio.timeout(timeout_s):
                await _end(child.pid)
        finally:
            child.kill()
            status = child.wait()
        return Ended(status, os.pread(output, os.fstat(output).st_size, 0))
    finally:
        os.close(output)


def _start(argv: Sequence[str], output: int, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)


async def _end(pid: int) -> None:
    """Returns when a child has ended; it is left to be waited for."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
