"""What the machines of a lab see and hold, for fault tests: the kernel's notifications as they come, routes, processes.

    async with watching(lab.machines["n1"], ROUTES) as seen:
        ...                                         # a fault
        assert await seen.changes() == []           # nothing was written and nothing went

`changes` makes a change of its own, a mark, and waits until the monitor tells of it: what came before was told, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from calipy.lab.machines import Machine

_AGAIN_S = 0.3
"""A mark that was set before the monitor listened is set again."""
_PATIENCE_S = 20.0
_numbers = itertools.count()


class Monitor(Struct, frozen=True, gc=False):
    """A command that tells of changes, a change that it tells of, and how that reads; `{}` stands for a number."""

    command: tuple[str, ...]
    mark: str
    reads: str


ROUTES = Monitor(
    ("ip", "-ts", "-o", "monitor", "route"),
    "ip route add blackhole 203.0.113.{} && ip route delete blackhole 203.0.113.{}",
    "Deleted blackhole 203.0.113.{} ",
)
LINKS = Monitor(
    ("ip", "-ts", "-o", "monitor", "link", "address", "neigh"),
    "ip address add 203.0.113.{} dev lo && ip address delete 203.0.113.{}/32 dev lo",
    "Deleted 1: lo    inet 203.0.113.{}/32 ",
)
TABLES = Monitor(
    ("nft", "monitor"), "nft 'add table inet mark{}; delete table inet mark{}'", "delete table inet mark{}"
)
_NO_NEWS = re.compile(r"203\.0\.113\.|table inet mark|# new generation|^\s*$")


class Watch:
    """A monitor at work."""

    def __init__(self, machine: Machine, monitor: Monitor, output: asyncio.StreamReader) -> None:
        self._machine, self._monitor, self._output = machine, monitor, output
        self._lines: list[str] = []

    async def changes(self) -> list[str]:
        """All that was told since the last time."""
        await self._catch_up()
        seen, self._lines = self._lines, []
        return [line for line in seen if not _NO_NEWS.search(line)]

    async def told(self, *texts: str, within_s: float = _PATIENCE_S) -> list[str]:
        """For each text the first line that has it, in the order of texts; those up to the last of them are
        forgotten."""
        found: dict[str, str] = {}
        async with asyncio.timeout(within_s):
            while len(found) < len(texts):
                line = self._lines.pop(0) if self._lines else await self._next()
                found |= {text: line for text in texts if text in line and text not in found}
        return [found[text] for text in texts]

    async def _catch_up(self) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                number = str(next(_numbers) % 256)
                await self._machine.run("sh", "-ec", self._monitor.mark.replace("{}", number))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_S):
                        return await self._read_until(self._monitor.reads.replace("{}", number))

    async def _read_until(self, words: str) -> None:
        while not self._lines or words not in f"{self._lines[-1]} ":
            self._lines.append(await self._next())

    async def _next(self) -> str:
        line = await self._output.readline()
        assert line, f"{self._monitor.command} on {self._machine.name} has ended"
        return line.decode().rstrip()


@contextlib.asynccontextmanager
async def watching(machine: Machine, monitor: Monitor) -> AsyncIterator[Watch]:
    """A monitor on a machine; from here on it misses nothing."""
    process = await asyncio.create_subprocess_exec(
        *machine.inside(*monitor.command), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        watch = Watch(machine, monitor, process.stdout)
        await watch.changes()
        yield watch
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.communicate()


def told_at(line: str) -> datetime:
    """When a line of `ip -ts monitor` was told."""
    return datetime.fromisoformat(line.partition("[")[2].partition("]")[0])


async def learned(machine: Machine) -> frozenset[str]:
    """Prefixes of the routes that BGP brought, both families."""
    found = set()
    for family in ("-4", "-6"):
        shown = await machine.run("ip", family, "-o", "route", "show", "proto", "bird")
        found |= {line.split()[0] for line in shown.text.splitlines() if not line[0].isspace()}
    return frozenset(found)


def processes(machine: Machine, word: str) -> list[int]:
    """Ids, as the host has them, of processes on a machine in whose command line `word` stands."""
    here = os.readlink(f"/proc/{machine.pid}/ns/pid")
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(place / "ns/pid") == here and word in (place / "cmdline").read_text():
                found.append(int(place.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or somebody else's
            continue
    return found
