"""`wait --for=programmed` and the wide column, by the reports of the nodes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from calipy.ctl.main import pycalicoctl  # noqa: F401  (imported before threads are)
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import NotFound
from calipy.resources import network_policies, node_reports, nodes
from calipy.resources.metadata import Key, ObjectMeta
from calipy.resources.node_reports import NodeReport
from calipy.resources.nodes import Node

Ctl = Callable[..., Result]
WEB = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: default}, spec: {}}\n"
KEY = Key("NetworkPolicy", "web", "default")
WAIT = ("wait", "--for=programmed", "networkpolicy/default/web")


async def _report(path: Path, node: str, ahead: int, shortfalls: dict[Key, str]) -> None:
    store = await SQLiteStore.open(path)
    revision = (await store.get(network_policies.KIND, "web", "default")).revision + ahead
    status = node_reports.status({"NetworkPolicy": revision}, shortfalls)
    value = NodeReport(metadata=ObjectMeta(name=node), status=status)
    try:
        await store.delete(node_reports.KIND, await store.get(node_reports.KIND, node))
    except NotFound:
        pass
    await store.create(node_reports.KIND, value)
    await store.close()


async def _nodes(path: Path, *names: str) -> None:
    store = await SQLiteStore.open(path)
    for name in names:
        await store.create(nodes.KIND, Node(metadata=ObjectMeta(name=name)))
    await store.close()


@pytest.fixture
def report(store_path: Path) -> Callable[..., None]:
    """A node reports that it is `ahead` revisions beyond the policy's."""

    def write(node: str, ahead: int = 0, shortfalls: dict[Key, str] | None = None) -> None:
        asyncio.run(_report(store_path, node, ahead, shortfalls or {}))

    return write


@pytest.fixture
def written(ctl: Ctl, store_path: Path) -> None:
    """A policy, and two nodes that have reported nothing."""
    asyncio.run(_nodes(store_path, "n1", "n2"))
    assert ctl("apply", "-f", "-", stdin=WEB).exit_code == 0


@pytest.mark.usefixtures("written")
def test_it_ends_when_every_node_has_got_so_far(ctl: Ctl, report: Any) -> None:
    report("n1")
    report("n2", 3)
    done = ctl(*WAIT)
    assert (done.exit_code, done.stdout) == (0, "NetworkPolicy/default/web is programmed on 2 of 2 nodes\n")


@pytest.mark.usefixtures("written")
def test_it_waits_for_the_report_that_is_missing(ctl: Ctl, report: Any) -> None:
    report("n1")
    later = threading.Timer(0.3, report, ("n2",))
    later.start()
    assert ctl(*WAIT).exit_code == 0
    later.join()


@pytest.mark.usefixtures("written")
def test_whoever_lags_is_named_with_the_reason(ctl: Ctl, report: Any) -> None:
    report("n1", -1)
    done = ctl(*WAIT, "--timeout", "0.1s")
    assert done.exit_code == 1
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: NetworkPolicy/default/web: is programmed on 0 of 2 nodes after 0.1 s;")
    assert rest[0].startswith("error: Node/n1: has not got so far yet")
    assert rest[1].startswith("error: Node/n2: has reported nothing yet")


@pytest.mark.usefixtures("written")
def test_a_policy_that_a_node_refuses_is_not_in_force_there(ctl: Ctl, report: Any) -> None:
    report("n1")
    report("n2", 5, {KEY: "the kernel refuses chain x: Invalid argument"})
    done = ctl(*WAIT, "--timeout", "0.1s")
    assert done.exit_code == 1
    assert "error: Node/n2: the kernel refuses chain x: Invalid argument" in done.stderr
    wide = ctl("get", "networkpolicies", "-o", "wide").stdout.splitlines()
    assert wide[0].split()[-1] == "PROGRAMMED"
    assert wide[1].split()[-1] == "1/2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ippool/a",), "nodes don't report of this kind"),
        (("networkpolicy",), "write networkpolicies/[NAMESPACE/]NAME"),
        (("tier/a/b",), "write tiers/NAME"),
        (("networkpolicy/web", "--timeout", "soon"), "is no duration"),
        (("networkpolicy/other",), "NetworkPolicy/default/other"),
    ],
)
@pytest.mark.usefixtures("written")
def test_what_can_not_be_waited_for_is_said(ctl: Ctl, words: tuple[str, ...], said: str) -> None:
    done = ctl("wait", "--for=programmed", *words)
    assert done.exit_code == 1
    assert said in done.stderr
