"""What the agent does by the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from calipy.felix.dataplane import Dataplane
from calipy.telemetry import Heartbeat, Pulse

_LOOK_S = 5.0
_IDLE_S, _BUSY_S = 1.0, 0.005
"""How long the loop's lateness goes unseen: while nothing is at work, and while something is."""


async def read_kernel_again(dataplane: Dataplane) -> None:
    """Has the kernel read now and then, whatever it told us, without end."""
    tables = routes = time.monotonic()
    while True:
        await asyncio.sleep(_LOOK_S)
        state = dataplane.state
        if state is None:
            continue
        now = time.monotonic()
        if 0 < state.settings.nftables_refresh_interval_s <= now - tables:
            tables = now
            dataplane.notice("nftables", "refresh")
        if 0 < state.settings.route_refresh_interval_s <= now - routes:
            routes = now
            for driver in ("routes", "links", "sysctls"):
                dataplane.notice(driver, "refresh")


class Lag:
    """How late the loop runs what is due: looked at once a second, which is also its sign of life, and every few
    milliseconds while one of the loops that it carries is at work: a slice of theirs that is too long is seen."""

    def __init__(self, observe: Callable[[float], object], heartbeat: Heartbeat) -> None:
        """`observe` is told each look's seconds."""
        self._observe = observe
        self._heartbeat = heartbeat
        self._pulses: list[Pulse] = []
        self._looking = False

    def watch(self, pulse: Pulse) -> None:
        """The turns of this one are looked at closely."""
        self._pulses.append(pulse)
        pulse.began = self._closely

    async def run(self) -> None:
        """Looks without end."""
        while True:
            due = time.monotonic() + _IDLE_S
            await asyncio.sleep(_IDLE_S)
            self._observe(max(0.0, time.monotonic() - due))
            self._heartbeat.beat()

    def _closely(self) -> None:
        if not self._looking:
            self._looking = True
            self._later()

    def _later(self) -> None:
        asyncio.get_running_loop().call_later(_BUSY_S, self._look, time.monotonic() + _BUSY_S)

    def _look(self, due: float) -> None:
        self._observe(max(0.0, time.monotonic() - due))
        self._looking = any(pulse.silent_s() for pulse in self._pulses)
        if self._looking:
            self._later()
