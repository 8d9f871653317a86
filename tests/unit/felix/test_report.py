"""The node's report on the embedded store: written when it has changed, and then once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from calipy.datastore.sqlite import SQLiteStore
from calipy.felix.objects import Owner
from calipy.felix.report import Reporter, policy_key
from calipy.resources import node_reports
from calipy.resources.metadata import Key, ObjectMeta, Refused, accept
from calipy.resources.node_reports import NodeReport, NodeReportStatus

WEB = Key("NetworkPolicy", "web", "default")


class Node:
    """What a reporter reads, to be set by hand."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.programmed = {"NetworkPolicy": 5, "Pod": 9}
        self.refused: dict[Owner, str] = {}
        self.unaccepted: dict[Key, str] = {}
        self.reporter = Reporter(
            store, "n1", lambda: self.programmed, lambda: self.refused, lambda: self.unaccepted, every_s=0.02
        )
        self.events = store.watch(node_reports.KIND, 0)

    async def told(self) -> NodeReport:
        """The next report."""
        self.reporter.changed()
        async with asyncio.timeout(5):
            async for event in self.events:
                if event.object is not None and event.type == "put":
                    return event.object.value
        raise AssertionError("the watch has ended")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    store = await SQLiteStore.open(tmp_path / "store")
    found = Node(store)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(found.reporter.run())
        yield found
        task.cancel()
    await store.close()


async def test_revisions_of_policy_kinds_are_told(node: Node) -> None:
    report = await node.told()
    assert report.status.programmed == {"NetworkPolicy": "5"}, "nobody asks how far pods are"
    assert report.reached("NetworkPolicy", 5)
    assert not report.reached("NetworkPolicy", 6)
    assert not report.reached("Tier", 1)


async def test_what_is_as_reported_is_not_written_again(node: Node) -> None:
    first = await node.told()
    node.programmed = {"NetworkPolicy": 5, "Pod": 10}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(node.told(), 0.2)
    node.programmed = {"NetworkPolicy": 6}
    node.events = node.store.watch(node_reports.KIND, int(first.metadata.resource_version))
    assert (await node.told()).reached("NetworkPolicy", 6)
    assert node.reporter.writes == 2


async def test_what_the_kernel_or_the_edge_refuses_is_an_exception(node: Node) -> None:
    node.refused = {Owner("policy", "np/default/web"): "Invalid argument", Owner("endpoint", "k8s/default/a/eth0"): "x"}
    node.unaccepted = {Key("Tier", "t"): "spec.order: ...", Key("Pod", "a", "default"): "unreadable"}
    report = await node.told()
    assert report.shortfall(WEB) == "Invalid argument"
    assert report.shortfall(Key("Tier", "t")) == "spec.order: ..."
    assert report.shortfall(Key("NetworkPolicy", "other", "default")) == ""
    assert len(report.status.exceptions) == 2
    node.refused = {}
    assert (await node.told()).shortfall(WEB) == ""


async def test_a_report_that_somebody_else_changed_is_put_right(node: Node) -> None:
    await node.told()
    stored = await node.store.get(node_reports.KIND, "n1")
    await node.store.delete(node_reports.KIND, stored)
    node.programmed = {"NetworkPolicy": 6}
    assert (await node.told()).reached("NetworkPolicy", 6)


@pytest.mark.parametrize(
    ("owner", "key"),
    [
        (Owner("policy", "np/default/web"), WEB),
        (Owner("policy", "gnp/web"), Key("GlobalNetworkPolicy", "web")),
        (Owner("policy", "knp/a/b.c"), Key("KubernetesNetworkPolicy", "b.c", "a")),
        (Owner("set", "s:x/4"), None),
    ],
)
def test_an_owner_in_the_kernel_is_an_object_in_the_store(owner: Owner, key: Key | None) -> None:
    assert policy_key(owner) == key


async def test_a_report_that_cannot_be_read_ends_nobody_and_is_told_once(
    node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await node.told()
    with closing(sqlite3.connect(tmp_path / "store")) as connection, connection:
        connection.execute('UPDATE objects SET text = replace(text, \'"programmed":{\', \'"programmed":7,"x":{\')')
    node.programmed = {"NetworkPolicy": 6}
    node.reporter.changed()
    for _ in range(3):
        await asyncio.sleep(0.05)
    said = [record.getMessage() for record in caplog.records if "NodeReport/n1" in record.getMessage()]
    assert len(said) == 1
    assert "status.programmed" in said[0]
    with closing(sqlite3.connect(tmp_path / "store")) as connection, connection:
        connection.execute("DELETE FROM objects")
    node.events = node.store.watch(node_reports.KIND, 0)
    assert (await node.told()).reached("NetworkPolicy", 6)


def test_a_revision_that_is_no_number_is_refused_and_reaches_nothing() -> None:
    report = NodeReport(
        metadata=ObjectMeta(name="n1"), status=NodeReportStatus(programmed={"Tier": "soon", "NetworkPolicy": "4"})
    )
    assert not report.reached("Tier", 0)
    with pytest.raises(Refused, match=r"status.programmed\[Tier\]: 'soon': is no revision"):
        accept(node_reports.KIND, report)
