"""The small files that others look for on the host: nodename and mtu (Calico's tools), the conflist (the runtime)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import Executor
from pathlib import Path

from msgspec import Struct

from calipy import files

_AGAIN_S = 5.0
log = logging.getLogger("calipy.agent.files")


class _Wanted(Struct, frozen=True, gc=False):
    data: bytes
    mode: int


class HostFiles:
    """Keeps files as they are wanted. One that can't be written is told once, shown, and tried again; nobody waits for
    it."""

    def __init__(self, thread: Executor) -> None:
        """`thread` does what waits for the disk."""
        self._thread = thread
        self._wanted: dict[Path, _Wanted] = {}
        self._tried: dict[Path, _Wanted] = {}
        self._problems: dict[Path, str] = {}
        self._news, self._done = asyncio.Event(), asyncio.Event()

    @property
    def problem(self) -> str:
        """What can't be written, and why."""
        return "; ".join(filter(None, self._problems.values()))

    def want(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """From now on the file is to hold that."""
        wanted = _Wanted(data, mode)
        if self._wanted.get(path) != wanted:
            self._wanted[path] = wanted
            self._news.set()

    def report(self, path: Path, problem: str) -> None:
        """The same of a file that somebody else keeps: what is wrong with it, empty if nothing is."""
        if problem and problem != self._problems.get(path):
            log.error("%s", problem)
        self._problems[path] = problem

    async def tried(self) -> None:
        """Returns when each file has been written, or can't be."""
        while self._wanted != self._tried:
            await self._done.wait()

    async def run(self) -> None:
        """Writes them, without end."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S if self.problem else None):
                    await self._news.wait()
            self._news.clear()
            for path, wanted in tuple(self._wanted.items()):
                if self._tried.get(path) != wanted or self._problems.get(path):
                    await self._write(path, wanted)
            self._done.set()
            self._done.clear()  # whoever waited has been woken, and looks

    async def _write(self, path: Path, wanted: _Wanted) -> None:
        def write() -> None:
            files.put(path, wanted.data, mode=wanted.mode)

        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, write)
            self.report(path, "")
        except OSError as error:
            self.report(path, f"{path} can't be written: {error.strerror}; it is tried again")
        self._tried[path] = wanted
