"""What the agent does by the clock."""

from __future__ import annotations

import asyncio
import time

from calipy.felix.dataplane import Dataplane
from calipy.telemetry import Heartbeat, Metrics

_LOOK_S = 5.0


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


async def measure_lag(metrics: Metrics, heartbeat: Heartbeat) -> None:
    """How late the loop is; also its sign of life."""
    while True:
        due = time.monotonic() + 1.0
        await asyncio.sleep(1.0)
        metrics.loop_lag.observe(max(0.0, time.monotonic() - due))
        heartbeat.beat()
