"""/liveness, /readiness and /metrics over a real socket, and a port that somebody else has."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from calipy.node.health import Address, Listener, health_application, metrics_application, serving, table
from calipy.telemetry import Health, Metrics, Row


async def get(address: Address, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{address[1]}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def asked(health: Health, path: str) -> tuple[int, str]:
    async with serving(health_application(health), ("localhost", 0)) as bound:
        return await get(bound[0], path)


async def test_without_reporters_there_is_nothing_to_say() -> None:
    assert await asked(Health(), "/liveness") == (204, "")


def sick() -> Health:
    health = Health()
    health.watch("CalculationGraph", lambda: 31.0, 30.0)
    health.ready["Datastore"] = lambda: ""
    return health


async def test_a_stuck_loop_fails_liveness_and_not_readiness() -> None:
    status, text = await asked(sick(), "/liveness")
    assert (status, text) == (503, table(sick().rows()))
    assert await asked(sick(), "/readiness") == (200, text)


async def test_what_is_not_ready_fails_readiness_and_not_liveness() -> None:
    health = Health()
    health.ready["FelixStartup"] = lambda: "the agent is starting"
    assert (await asked(health, "/readiness"))[0] == 503
    assert (await asked(health, "/liveness"))[0] == 200


async def test_one_reporter_alone_may_be_asked_for_or_all_the_others() -> None:
    health = Health()
    health.ready["BGP"] = lambda: "no session is up"
    health.ready["Datastore"] = lambda: ""
    assert [(await asked(health, path))[0] for path in ("/readiness", "/readiness?without=BGP")] == [503, 200]
    assert [(await asked(health, f"/readiness?only={name}"))[0] for name in ("BGP", "Datastore", "X")] == [
        503,
        200,
        204,
    ]


def test_the_table() -> None:
    rows = (
        Row(component="CalculationGraph", timeout_s=30.0, overridden=False, live="", ready="not in sync"),
        Row(component="Datastore", timeout_s=None, overridden=False, live=None, ready=""),
        Row(component="EventLoop", timeout_s=90.5, overridden=True, live="no sign of life", ready=None),
        Row(component="Feed", timeout_s=0.0, overridden=True, live="", ready=None),
    )
    assert table(rows) == (
        "+------------------+------------------+--------------------+---------------------+-----------------+\n"
        "| COMPONENT        | TIMEOUT          | LIVENESS           | READINESS           | DETAIL          |\n"
        "+------------------+------------------+--------------------+---------------------+-----------------+\n"
        "| CalculationGraph | 30s              | reporting live     | reporting non-ready | not in sync     |\n"
        "| Datastore        | -                | -                  | reporting ready     |                 |\n"
        "| EventLoop        | 90.5s (override) | reporting non-live | -                   | no sign of life |\n"
        "| Feed             | - (override)     | reporting live     | -                   |                 |\n"
        "+------------------+------------------+--------------------+---------------------+-----------------+\n"
    )


async def test_metrics_have_their_own_server() -> None:
    async with serving(metrics_application(Metrics()), ("127.0.0.1", 0)) as bound:
        status, text = await get(bound[0], "/metrics")
        assert (status, (await get(bound[0], "/liveness"))[0]) == (200, 404)
    assert "# TYPE felix_active_local_endpoints gauge" in text


class Place:
    """Where the settings want the server."""

    def __init__(self, address: Address | None) -> None:
        self.address = address
        make = lambda: health_application(Health())  # noqa: E731
        self.listener = Listener("health", make, lambda: self.address, "set healthPort")

    def move(self, address: Address | None) -> None:
        self.address = address
        self.listener.follow()


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[Place]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(place.listener.run())
        yield place
        task.cancel()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0)


async def test_a_server_follows_the_settings() -> None:
    async with running(Place(None)) as place:
        await asyncio.sleep(0)
        assert place.listener.bound == ()
        place.move(("127.0.0.1", 0))
        await until(lambda: place.listener.bound)
        first = place.listener.bound[0]
        assert (await get(first, "/liveness"))[0] == 204
        place.move(("localhost", 0))
        await until(lambda: place.listener.bound and place.listener.bound[0] != first)
        place.move(None)
        await until(lambda: not place.listener.bound)
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(first, "/liveness")


async def test_a_port_that_is_taken_is_told_once_and_left_when_the_settings_move(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with running(Place(("127.0.0.1", port))) as place:
            await until(lambda: place.listener.problem)
            assert place.listener.problem == (
                f"health can't be served on 127.0.0.1:{port}: Address already in use; set healthPort"
            )
            place.listener.follow()
            for _ in range(100):
                await asyncio.sleep(0)
            assert caplog.messages == [place.listener.problem]
            place.move(("127.0.0.1", 0))
            await until(lambda: place.listener.bound)
            assert place.listener.problem == ""


async def test_an_open_connection_does_not_keep_a_server_from_closing() -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    application = web.Application()
    application.router.add_get("/", slow)
    async with asyncio.timeout(30):
        async with serving(application, ("127.0.0.1", 0)) as bound:
            reader, writer = await asyncio.open_connection("127.0.0.1", bound[0][1])
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        assert await reader.read() == b""
