"""`wait`: until what was written is in force on every node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from calipy.console.failures import Failure, Failures
from calipy.ctl.finding import find
from calipy.ctl.programmed import Standing, is_reported, standing
from calipy.datastore.stores import Event, Store
from calipy.resources import node_reports, nodes
from calipy.resources.metadata import Key, Kind
from calipy.resources.node_reports import NodeReport


async def wait(
    store: Store, kind: Kind[Any], name: str, namespace: str, *, timeout_s: float, say: Callable[[str], None]
) -> None:  # fmt: skip
    """Returns when all nodes report that they hold the object as it is now. Raises NotFound; Failure for a kind of
    which nodes tell nothing; Failures with each node that lags, and why, after `timeout_s`."""
    if not is_reported(kind.name):
        known = ", ".join(node_reports.REPORTED)
        raise Failure("wait", "nodes don't report of this kind", f"known are {known}", value=kind.plural)
    stored = await find(store, kind, name, namespace)
    key = Key(kind.name, stored.value.metadata.name, stored.value.metadata.namespace)
    names = frozenset([item.value.metadata.name async for page in store.list(nodes.KIND) for item in page.items])
    if not names:
        raise Failure("wait", "there are no nodes", "start one", value=str(key))
    reports, revision = await reports_of(store)
    last = standing(key, stored.revision, names, reports)
    try:
        async with asyncio.timeout(timeout_s):
            events = store.watch(node_reports.KIND, revision)
            while not last.everywhere:
                _take(reports, await anext(events))
                last = standing(key, stored.revision, names, reports)
    except TimeoutError:
        raise _lagging(key, last, timeout_s) from None
    say(f"{key} is {last}")


async def reports_of(store: Store) -> tuple[dict[str, NodeReport], int]:
    """All reports by node, and the revision of the list."""
    reports: dict[str, NodeReport] = {}
    revision = 0
    async for page in store.list(node_reports.KIND):
        reports.update((item.value.metadata.name, item.value) for item in page.items)
        revision = page.revision
    return reports, revision


def _take(reports: dict[str, NodeReport], event: Event[NodeReport]) -> None:
    if event.object is None:
        return
    if event.type == "put":
        reports[event.object.key.name] = event.object.value
    else:
        reports.pop(event.object.key.name, None)


def _lagging(key: Key, last: Standing, timeout_s: float) -> Failures:
    remedy = "see the node's log, or wait longer"
    found = [Failure(f"Node/{node}", reason, remedy) for node, reason in last.missing.items()]
    return Failures([Failure(str(key), f"is {last} after {timeout_s:g} s", "see the nodes that follow"), *found])
