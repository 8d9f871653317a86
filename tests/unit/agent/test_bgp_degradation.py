"""What of BGP's configuration isn't followed is told, and keeps the node from nothing that Calico's wouldn't be kept
from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from calipy.agent.bgp import Bgp
from calipy.agent.feed import Feed
from calipy.datastore.batches import Batch
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Event, Stored
from calipy.node.health import table
from calipy.resources import bgp_configurations, bgp_peers, nodes, secrets
from calipy.resources.metadata import Kind, ObjectMeta
from calipy.resources.secrets import Secret
from calipy.settings import read
from calipy.telemetry import Health, Metrics
from tests.unit.resources.objects import made

NO_MESH = {"nodeToNodeMeshEnabled": False}
TOR = {"peerIP": "10.9.0.9", "asNumber": 65001}
SECRET = {"password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}}
MISSING = "password from Secret bgp, key tor: is not known, so the session stays down; "


class Nothing:
    """A part of the agent that BGP only listens to here."""

    attached = ()

    def listen(self, listener: Callable[[], None]) -> None:
        pass


class News:
    """What the store says."""

    def __init__(self) -> None:
        self.unreadable: dict[Any, str] = {}
        self._events: list[Event[Any]] = []

    def put(self, kind: Kind[Any], name: str, spec: dict[str, Any], **metadata: Any) -> None:
        value = made(kind, spec, name, uid=name, **metadata)
        stored = Stored(key=kind.key(value), uid=name, revision=1, value=value)
        self._events.append(Event(type="put", revision=1, object=stored))

    async def batches(self) -> AsyncIterator[Batch]:
        yield Batch(events=tuple(self._events), revisions={}, in_sync=True)
        self._events.clear()


class Case:
    """A node's BGP, its store, and who reports on its health."""

    def __init__(self, store: SQLiteStore, folder: Path) -> None:
        self.store, self.news = store, News()
        self.feed = Feed(self.news, "n1")
        settings = read({"NODENAME": "n1", "CALIPY_RUN_DIR": str(folder)})
        parts: tuple[Any, ...] = (Nothing(), Nothing(), lambda events: asyncio.Future())
        self.bgp = Bgp(settings, store, self.feed, *parts, Metrics())
        self.health = Health()
        self.health.ready["BGP"], self.health.degraded["BGP"] = self.bgp.problem, self.bgp.degradation
        for number in (1, 2):
            address = {"projectcalico.org/IPv4Address": f"10.9.0.{number}/24"}
            self.news.put(nodes.KIND, f"n{number}", {}, annotations=address)

    async def settle(self) -> None:
        await self.feed.run(lambda events: None)
        await self.bgp.settle()


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    store = await SQLiteStore.open(tmp_path / "store")
    yield Case(store, tmp_path)
    await store.close()


async def test_a_peering_that_is_passed_over_degrades_and_is_logged_once(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    case.news.put(bgp_configurations.KIND, "default", NO_MESH)
    case.news.put(bgp_peers.KIND, "first", TOR)
    await case.settle()
    assert case.bgp.degradation() == ""
    case.news.put(bgp_peers.KIND, "second", {**TOR, "asNumber": 65002})
    for _ in range(2):
        await case.settle()
    assert case.bgp.degradation().startswith("BGPPeer second: spec.asNumber: '65002': BGPPeer first already peers with")
    assert [record.message for record in caplog.records].count(case.bgp.degradation()) == 1
    (row,) = case.health.rows()
    assert row.ready == "sessions not up: Global_10_9_0_9 (no session yet)"
    assert row.degraded == case.bgp.degradation()
    assert row.degraded in table([row])


async def test_a_password_that_is_missing_degrades_until_it_is_there(case: Case) -> None:
    case.news.put(bgp_configurations.KIND, "default", NO_MESH)
    case.news.put(bgp_peers.KIND, "tor", {**TOR, **SECRET})
    case.news.put(bgp_peers.KIND, "other", {**TOR, **SECRET, "peerIP": "10.9.0.8"})
    await case.settle()
    remedy = "Secret/kube-system/bgp is not there; create it"
    assert case.bgp.degradation() == f"Global_10_9_0_8, Global_10_9_0_9: {MISSING}{remedy}"
    assert {session.reason for session in case.bgp.sessions()} == {f"{MISSING}{remedy}"}
    metadata = ObjectMeta(name="bgp", namespace="kube-system")
    await case.store.create(secrets.KIND, Secret(metadata=metadata, data={"tor": "Zmlyc3Q="}))
    await case.bgp.settle()
    assert case.bgp.degradation() == ""


def test_a_node_that_is_degraded_is_ready() -> None:
    health = Health()
    health.ready["BGP"], health.degraded["BGP"] = lambda: "", lambda: "filters are not applied"
    (row,) = health.rows()
    assert not row.ready
    assert "reporting ready | filters are not applied" in table([row])
    assert health.problems(health.degraded) == {"BGP": "filters are not applied"}
