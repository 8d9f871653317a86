"""The session without ExaBGP, and with one that writes what it shouldn't."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from calipy.bgp.commands import SHOW_NEIGHBORS, SHOW_RECEIVED, SHOW_TOLD
from calipy.bgp.peers import Peer, Topology
from calipy.bgp.pipe import SOCKET
from calipy.bgp.session import Session
from calipy.model.routes import LearnedRoute
from tests.unit.bgp.lines import EVENTS

ME, PEER = "10.9.0.1", Peer(name="Mesh_10_9_0_2", address="10.9.0.2", as_number=1, local_address="10.9.0.1", local_as=1)
TOPOLOGY = Topology(node="me", router_id=ME, peers=(PEER,))
ACCOUNT = (
    '[{"state": "up", "duration": 99, "fsm": "ESTABLISHED", "local": {"address": "10.9.0.1", "as": 1}, "peer": '
    '{"address": "10.9.0.2", "as": 1, "id": "10.9.0.2", "capabilities": {"graceful-restart": true}}}]'
)


def route(prefix: str, next_hop: str = "10.9.0.2") -> str:
    return (
        f'{{"peer": {{"address": "10.9.0.2"}}, "route": {{"nlri": {{"prefix": "{prefix}", "nexthop": "{next_hop}", '
        f'"family": {{"afi": "ipv4", "safi": "unicast"}}}}, "attributes": {{"local-preference": 100}}}}}}'
    )


def news(prefix: str) -> str:
    return (
        f'{{ "exabgp": "5.0.0", "type": "update", "neighbor": {{ "address": {{ "peer": "10.9.0.2" }}, "message": '
        f'{{ "update": {{ "announce": {{ "ipv4 unicast": {{ "10.9.0.2": [ {{ "nlri": "{prefix}" }} ] }} }} }} }} }} }}'
    )


class Speaker:
    """What is at the pipe's far end: it answers as it is told to."""

    def __init__(self, answers: Mapping[str, tuple[str, ...]]) -> None:
        self._answers = answers

    @contextlib.asynccontextmanager
    async def connected(self, folder: Path) -> AsyncIterator[Callable[[str], None]]:
        reader, writer = await asyncio.open_unix_connection(folder / SOCKET)

        def say(line: str) -> None:
            writer.write(f"{line}\n".encode())

        async def answer() -> None:
            while command := (await reader.readline()).decode().strip():
                if not command.startswith(":"):
                    for line in (*self._answers.get(command, ()), "done"):
                        say(line)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(answer())
            yield say
            task.cancel()
            writer.close()


async def test_without_peers_nobody_is_waited_for_whenever_that_becomes_known(tmp_path: Path) -> None:
    told = asyncio.Event()
    session = Session(tmp_path, lambda routes: None, told.set)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(session.run())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not told.is_set()
        session.configure(Topology(node="me", router_id=ME), {}, {})
        await asyncio.wait_for(told.wait(), 5)
        task.cancel()


async def test_a_wrong_line_is_refused_and_those_around_it_are_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learned: dict[str, LearnedRoute | None] = {}
    posted = asyncio.Queue[None]()

    def post(routes: Mapping[str, LearnedRoute | None]) -> None:
        learned.update(routes)
        posted.put_nowait(None)

    received = (route("10.1.0.0/26"), route("10.1.0.64/26", "nowhere"), "{", route("10.2.0.0/26"))
    speaker = Speaker({SHOW_NEIGHBORS: (ACCOUNT,), SHOW_RECEIVED: received, SHOW_TOLD: (route("10.9.9.0/99"),)})
    session = Session(tmp_path, post, lambda: None)
    session.configure(TOPOLOGY, {}, {})
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(session.run())
        for _ in range(5):
            await asyncio.sleep(0)
        async with speaker.connected(tmp_path) as say:
            await posted.get()
            assert learned.keys() == {"10.1.0.0/26", "10.2.0.0/26"}
            say(news("10.4.0.0/99"))
            say(news("10.3.0.0/26"))
            await posted.get()
            assert session.connected
        task.cancel()
    assert learned.keys() == {"10.1.0.0/26", "10.2.0.0/26", "10.3.0.0/26"}
    assert sum("can't be read; it is dropped" in record.message for record in caplog.records) == 4


async def test_an_open_that_came_before_the_peer_was_configured_is_asked_about(tmp_path: Path) -> None:
    """Else nobody would know that the peer does graceful restart, and its routes would go with the session."""
    happened = asyncio.Event()
    learned: dict[str, LearnedRoute | None] = {}
    speaker = Speaker({SHOW_NEIGHBORS: (ACCOUNT,), SHOW_RECEIVED: (route("10.1.0.0/26"),)})
    session = Session(tmp_path, learned.update, lambda: None)
    session.listen(happened.set)

    async def until(true: Callable[[], bool]) -> None:
        while not true():
            happened.clear()
            await happened.wait()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(session.run())
        for _ in range(5):
            await asyncio.sleep(0)
        async with speaker.connected(tmp_path) as say:
            for name in ("connected", "open of ExaBGP that goes on", "up"):
                say(EVENTS[name].decode())
            await until(lambda: session.standing(PEER).state == "up")
            session.configure(TOPOLOGY, {}, {})
            await until(lambda: session.received(PEER) == 1 and session.connected)
            say(EVENTS["connection lost"].decode())
            await until(lambda: session.standing(PEER).state == "down")
            assert session.stale(PEER)
            assert session.received(PEER) == 1
        task.cancel()
