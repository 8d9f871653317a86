"""GET /liveness and /readiness on one port, GET /metrics on another: each opened only where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from calipy.telemetry import Health, Metrics


def health_application(health: Health) -> web.Application:
    """200 with `ok`, or 503 with a line for each complaint (Felix's behaviour)."""

    async def liveness(_: web.Request) -> web.Response:
        return _answer(health.problems(health.live))

    async def readiness(_: web.Request) -> web.Response:
        return _answer(health.problems(health.ready))

    application = web.Application()
    application.router.add_get("/liveness", liveness)
    application.router.add_get("/readiness", readiness)
    return application


def metrics_application(metrics: Metrics) -> web.Application:
    """The Prometheus text format."""

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    application = web.Application()
    application.router.add_get("/metrics", exposition)
    return application


@contextlib.asynccontextmanager
async def serving(application: web.Application, host: str, port: int) -> AsyncIterator[None]:
    """Serves for as long as the context lasts. An empty host means all addresses, `localhost` 127.0.0.1: a name would
    need a resolver's thread. Raises OSError where the port can't be had."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        address = {"localhost": "127.0.0.1", "": None}.get(host, host)
        await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()


def _answer(problems: dict[str, str]) -> web.Response:
    if not problems:
        return web.Response(text="ok\n")
    return web.Response(status=503, text="".join(f"{name}: {said}\n" for name, said in sorted(problems.items())))
