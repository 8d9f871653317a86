"""Keeps ExaBGP's configuration file as it is meant to be."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from calipy.bgp import exabgp_config, installation
from calipy.bgp.peers import Peer, Topology
from calipy.bgp.sidecar import CONFIGURATION, pipe_command
from calipy.bgp.waiting import until

_AGAIN_S, _AGAIN_MOST_S = 1.0, 300.0
_OVERTAKEN_MOST_S = 2.0
"""For so long a file that is being checked gives way to a newer one."""
_MARK = re.compile(r' ([0-9a-f]{16})";')
log = logging.getLogger("calipy.bgp")


class PlacedFile(Struct, frozen=True, gc=False, kw_only=True):
    """A file that is in place."""

    topology: Topology
    passwords: Mapping[str, str]
    mark: str
    """Stands in each neighbor's description: ExaBGP that shows it has read this file."""

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Those that stand in it."""
        left_out = exabgp_config.refused(self.topology, self.passwords)
        return tuple(peer for peer in self.topology.peers if peer.name not in left_out)


class Placement:
    """The file in `folder`. `changed` is called after each try to put one in place."""

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        self._folder, self._changed = folder, changed
        self._wanted: tuple[Topology, Mapping[str, str]] | None = None
        self._render = asyncio.Event()
        self.placed: PlacedFile | None = None
        """None until this agent has put one in place, or found it there."""
        self.problem = ""
        """Why the file isn't as it is meant to be."""

    def want(self, topology: Topology, passwords: Mapping[str, str]) -> None:
        """What it is to say; passwords by peer name."""
        wanted = (topology, dict(passwords))
        if wanted != self._wanted:
            self._wanted = wanted
            self._render.set()

    async def run(self) -> None:
        """Without end. What can't be put in place is tried again, ever less often: a disk that is full, or a node too
        busy to have the file checked in time, tells nobody when it no longer is."""
        failures = 0
        again_s: float | None = None
        while True:
            await until(self._render, again_s)
            again_s = None
            if self._wanted is None:
                continue
            try:
                self.placed = await self._put_newest(*self._wanted)
            except (installation.Rejected, exabgp_config.ConfigError, OSError) as error:
                former, path = self.problem, self._folder / CONFIGURATION
                self.problem = f"{path}: {error}; the last good one stays in force"
                if self.problem != former:
                    log.error("%s", self.problem)
                again_s = time.monotonic() + min(_AGAIN_S * 2.0**failures, _AGAIN_MOST_S)
                failures = min(failures + 1, 16)
            else:
                self.problem, failures = "", 0
            self._changed()

    async def _put_newest(self, topology: Topology, passwords: Mapping[str, str]) -> PlacedFile:
        """What is wanted while a file is checked overtakes it. Else the first file would lack the nodes that are
        introduced right after this one, and ExaBGP would refuse their connections until it is reloaded."""
        until_s = time.monotonic() + _OVERTAKEN_MOST_S
        while (mark := await self._put(topology, passwords, until_s)) is None:
            self._render.clear()
            assert self._wanted is not None
            topology, passwords = self._wanted
        return PlacedFile(topology=topology, passwords=passwords, mark=mark)

    async def _put(self, topology: Topology, passwords: Mapping[str, str], until_s: float) -> str | None:
        """Puts the file in place, unless the one that is there says the same; its mark, None = something newer came
        before `until_s`. Raises Rejected, ConfigError, OSError."""
        path = self._folder / CONFIGURATION
        run = pipe_command(self._folder, topology.shortest_hold_s)
        former = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        found = _MARK.search(former)
        if found and exabgp_config.render(topology, passwords, run, found[1]) == former:
            return found[1]
        mark = secrets.token_hex(8)
        text = exabgp_config.render(topology, passwords, run, mark)

        def overtaken() -> bool:
            return self._render.is_set() and time.monotonic() < until_s

        return mark if await installation.install(path, text, passwords.values(), overtaken) else None
