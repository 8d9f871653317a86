"""GET /liveness and /readiness on one port, GET /metrics on another: each opened only where it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

from aiohttp import web

from calipy.telemetry import Health, Metrics, Row

log = logging.getLogger("calipy.node.health")

Address = tuple[str, int]
"""Host (an address, `localhost`, or empty for all addresses) and port."""
_RETRY_S = 5.0
_SHUTDOWN_S = 0.1
"""How long an open connection may keep a server from closing."""


def health_application(health: Health) -> web.Application:
    """200, or 503 if something is wrong, each with the table of reporters; 204 while there are none. As Felix. A query
    narrows it: `only=BGP`, `without=BGP`."""

    def answer(request: web.Request, wrong: Callable[[Row], str | None]) -> web.Response:
        rows = list(_asked_for(health.rows(), request.query.get("only", ""), request.query.get("without", "")))
        if not rows:
            return web.Response(status=204)
        return web.Response(status=503 if any(map(wrong, rows)) else 200, text=table(rows))

    async def liveness(request: web.Request) -> web.Response:
        return answer(request, lambda row: row.live)

    async def readiness(request: web.Request) -> web.Response:
        return answer(request, lambda row: row.ready)

    application = web.Application()
    application.router.add_get("/liveness", liveness)
    application.router.add_get("/readiness", readiness)
    return application


def _asked_for(rows: Iterable[Row], only: str, without: str) -> Iterator[Row]:
    """Rows of one component alone, or of all but one; empty = of all."""
    return (row for row in rows if only in ("", row.component) and row.component != without)


def table(rows: Iterable[Row]) -> str:
    """Felix's table: what each reporter says."""
    lines = [("COMPONENT", "TIMEOUT", "LIVENESS", "READINESS", "DETAIL"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = f"+{'+'.join('-' * (width + 2) for width in widths)}+"
    texts = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines]
    return "\n".join([rule, texts[0], rule, *texts[1:], rule, ""])


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    timeout = "-" if not row.timeout_s else f"{row.timeout_s:g}s"
    return (
        row.component,
        f"{timeout} (override)" if row.overridden else timeout,
        "-" if row.live is None else "reporting non-live" if row.live else "reporting live",
        "-" if row.ready is None else "reporting non-ready" if row.ready else "reporting ready",
        "; ".join(filter(None, (row.live, row.ready, row.degraded))),
    )


def metrics_application(metrics: Metrics) -> web.Application:
    """The Prometheus text format."""

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    application = web.Application()
    application.router.add_get("/metrics", exposition)
    return application


@contextlib.asynccontextmanager
async def serving(application: web.Application, address: Address) -> AsyncIterator[Sequence[Address]]:
    """Serves for as long as the context lasts; gives the addresses bound. `localhost` is 127.0.0.1: a name would need
    a resolver's thread. Raises OSError where the port can't be had."""
    host, port = address
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, {"localhost": "127.0.0.1", "": None}.get(host, host), port).start()
        yield [found[:2] for found in runner.addresses]
    finally:
        await runner.cleanup()


class Listener:
    """Keeps a server where the settings want it, and follows them. A port that can't be had is told once, and tried
    again: what serves pods goes on meanwhile."""

    def __init__(
        self, what: str, make: Callable[[], web.Application], wanted: Callable[[], Address | None], remedy: str
    ) -> None:
        self._what = what
        self._make = make
        self._wanted = wanted
        self._remedy = remedy
        self._changed = asyncio.Event()
        self.problem = ""
        """Why the server isn't where it should be."""
        self.bound: Sequence[Address] = ()
        """Where it is."""

    def follow(self) -> None:
        """The settings may want it elsewhere."""
        self._changed.set()

    async def run(self) -> None:
        """Serves without end."""
        while True:
            self._changed.clear()
            address = self._wanted()
            if address is None:
                self.problem = ""
                await self._changed.wait()
                continue
            try:
                await self._serve(address)
            except OSError as error:
                self._complain(address, error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):  # wait_for may pass over a cancellation
                        await self._changed.wait()

    async def _serve(self, address: Address) -> None:
        async with serving(self._make(), address) as self.bound:
            self.problem = ""
            log.info("%s is served on %s", self._what, _spelled(address))
            while self._wanted() == address:
                await self._changed.wait()
                self._changed.clear()
        self.bound = ()

    def _complain(self, address: Address, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno else str(error)
        problem = f"{self._what} can't be served on {_spelled(address)}: {reason}; {self._remedy}"
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem


def _spelled(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
