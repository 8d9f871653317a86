"""Looks for what is wrong with this host: at the start, when others change their packet filters, and now and then."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from typing import TypeVar

from calipy.netlink.socket import NetlinkSocket
from calipy.node.check import CHECKS, Finding, judge
from calipy.node.rulesets import TableKey, is_foreign, read
from calipy.node.ways import Pods
from calipy.resources import felix_configurations, ip_pools
from calipy.telemetry import Pulse

log = logging.getLogger("calipy.node.check")

EVERY_S, AT_LATEST_S = 2.0, 180.0
"""How often what others change is looked at, at most and at least: nobody tells of iptables' own tables."""
_GATHER_S = 0.1
"""From the first notice to the look: changes come in bursts, and ours have others that follow."""
_SHARE = 50
"""A look that takes a second is not repeated for so many."""
SLICE_S = 0.005
"""How long a look may hold the loop in one go."""
_MOVED = (errno.EAGAIN, errno.ENOENT)
"""What a dump ends with when it is changed again and again meanwhile, or its table has gone."""
_TOLD = 10
"""Findings that are logged one by one, and named by health."""
_FOLLOWED = {ip_pools.KIND.name, felix_configurations.KIND.name}
T = TypeVar("T")
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "notice": logging.INFO}


class Checks:
    """The findings as they are now. What is found is told once in the log, and again when it is gone."""

    def __init__(self, socket: NetlinkSocket, pods: Callable[[], Pods], *, every_s: float = EVERY_S) -> None:
        """`socket` is for netfilter, and closed with this; `pods` is asked at each look."""
        self._socket = socket
        self._pods = pods
        self._every_s = every_s
        self._wake = asyncio.Event()
        self._spent_s = 0.0
        """Of the loop's time, by the look at work."""
        self.pulse = Pulse()
        self.findings: tuple[Finding, ...] = ()
        """In order of their severity."""
        self.looks = 0
        self.unread = ""
        """Why others' packet filters can't be read."""

    def changed(self, tables: Set[TableKey] | None = None) -> None:
        """Others have changed their tables, or, None, what the findings depend on may have changed."""
        if tables is None or any(map(is_foreign, tables)):
            self._wake.set()

    def heard(self, kinds: frozenset[str]) -> None:
        """Objects of these kinds have changed in the store."""
        if kinds & _FOLLOWED:
            self._wake.set()

    def by_check(self) -> dict[str, int]:
        """How many errors and warnings each check has found."""
        return {name: 0 for name in CHECKS} | Counter(each.check for each in self.findings if each.severity != "notice")

    def problem(self) -> str:
        """The errors and warnings in one text; empty if there are none."""
        found = [str(each) for each in self.findings if each.severity != "notice"]
        more = [f"and {len(found) - _TOLD} more"] if len(found) > _TOLD else []
        return "; ".join(filter(None, (self.unread, *found[:_TOLD], *more)))

    def close(self) -> None:
        """Lets go of the socket."""
        self._socket.close()

    async def run(self) -> None:
        """Looks, without end."""
        while True:
            self._wake.clear()
            self._spent_s = 0.0
            with self.pulse.turn():
                await self._look()
            await asyncio.sleep(max(self._every_s, _SHARE * self._spent_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AT_LATEST_S):  # wait_for may pass over a cancellation
                    await self._wake.wait()
            await asyncio.sleep(_GATHER_S)

    async def _look(self) -> None:
        try:
            (rules,) = await self._sliced(read(self._socket))
        except OSError as error:
            if error.errno in _MOVED:
                self._wake.set()
            else:
                self._tell_unread(f"packet filters of others can't be read: {error.strerror}")
            return
        self._tell_unread("")
        found = await self._sliced(judge(rules, self._pods()))
        self.looks += 1
        self._tell(found)

    async def _sliced(self, steps: Iterator[T | None]) -> list[T]:
        """What comes of steps, without those that are None; the loop is not held for long."""
        found: list[T] = []
        began = time.monotonic()
        for step in steps:
            if step is not None:
                found.append(step)
            now = time.monotonic()
            if now - began >= SLICE_S:
                self._spent_s += now - began
                await asyncio.sleep(0)
                began = time.monotonic()
        self._spent_s += time.monotonic() - began
        return found

    def _tell_unread(self, why: str) -> None:
        if why and why != self.unread:
            log.warning("%s", why)
        self.unread = why

    def _tell(self, found: Iterable[Finding]) -> None:
        ranks = list(_LEVELS)
        before, self.findings = self.findings, tuple(sorted(found, key=lambda each: (ranks.index(each.severity), each)))
        known = {_key(each) for each in before}
        new = [each for each in self.findings if _key(each) not in known]
        for each in new[:_TOLD]:
            log.log(_LEVELS[each.severity], "%s", each)
        if len(new) > _TOLD:
            log.warning("and %d more; the question `checks` tells all", len(new) - _TOLD)
        there = {_key(each) for each in self.findings}
        for each in before:
            if _key(each) not in there:
                log.info("no longer so: %s: %s", each.subject, each.words)


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.check, finding.subject, finding.words
