"""Drives the calculation graph: takes events from anyone on the loop, flushes in slices, hands the Change on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from calipy.felix.calc.change import Change
from calipy.felix.calc.graph import Graph
from calipy.felix.calc.stats import Stats
from calipy.felix.calc.world import Event
from calipy.telemetry import Pulse

SLICE_S = 0.005
"""How long a flush may hold the loop in one go."""


class Calculator:
    """The one shell around the graph."""

    def __init__(self, graph: Graph, submit: Callable[[Change], int]) -> None:
        self._graph = graph
        self._submit = submit
        self._wake = asyncio.Event()
        self._waiting: list[asyncio.Future[int]] = []
        self.pulse = Pulse()

    def post(self, events: Iterable[Event]) -> asyncio.Future[int]:
        """Takes events in. The future gives the serial under which the dataplane got what they moved."""
        self._graph.update(events)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake.set()
        return future

    @property
    def stats(self) -> Stats:
        """What it has done so far, counted."""
        return self._graph.stats

    async def run(self) -> None:
        """Flushes whenever there is something to do, without end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            with self.pulse.turn():
                serial = self._submit(await self._flush())
            for future in waiting:
                if not future.done():
                    future.set_result(serial)

    async def _flush(self) -> Change:
        flush = self._graph.flush()
        until = time.monotonic() + SLICE_S
        while True:
            try:
                next(flush)
            except StopIteration as end:
                change: Change = end.value
                return change
            if time.monotonic() >= until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S
