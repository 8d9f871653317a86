"""The Node's condition NetworkUnavailable, as calico/node sets it: False once this node's network is up, True when it
has been down for a while and when the agent ends. What sets it True at a node's birth is a cloud's controller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import structs

from calipy.datastore.stores import Store, StoreError
from calipy.node import identity
from calipy.resources.metadata import Refused
from calipy.resources.nodes import NETWORK_UNAVAILABLE, Node, NodeCondition

LOOK_S, FIRST_LOOK_S = 10.0, 0.5
"""How often readiness is looked at: calico/node's figure; more often until it is ready for the first time."""
_PATIENCE = 3
"""After so many looks in a row a node that isn't ready has no network."""
FAREWELL_S = 2.0
"""So long an agent that ends waits for the store."""
log = logging.getLogger("calipy.node.availability")


class Availability:
    """Keeps the condition right."""

    def __init__(self, store: Store, node: str, problem: Callable[[], str]) -> None:
        """`problem` says why the node isn't ready; empty = it is."""
        self._store, self._node, self._problem = store, node, problem
        self._told: bool | None = None
        self._complaint = ""
        self._leaves = False

    async def run(self) -> None:
        """Follows readiness, until the farewell."""
        failures = 0
        while not self._leaves:
            problem = self._problem()
            failures = failures + 1 if problem else 0
            if not problem:
                await self._tell(True, "CalIPy is running on this node")
            elif self._told and failures >= _PATIENCE:
                await self._tell(False, f"CalIPy is not ready on this node: {problem}")
            await asyncio.sleep(FIRST_LOOK_S if self._told is None else LOOK_S)

    async def farewell(self) -> None:
        """The agent ends: until the next one is ready, no new pods. Nobody waits long for it."""
        self._leaves = True
        if self._told:
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await self._tell(False, "CalIPy is shutting down on this node")
            except TimeoutError:
                log.warning("Node/%s: there was no time to write condition %s", self._node, NETWORK_UNAVAILABLE)

    async def _tell(self, available: bool, message: str) -> None:
        """Writes it where it has changed."""
        if self._told == available:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            await identity.change(self._store, self._node, lambda node: with_condition(node, available, message, now))
        except (StoreError, Refused) as error:
            if str(error) != self._complaint:
                log.warning("condition %s can't be written: %s; it is tried again", NETWORK_UNAVAILABLE, error)
            self._complaint = str(error)
        else:
            self._told, self._complaint = available, ""


def with_condition(node: Node, available: bool, message: str, now: str) -> Node:
    """The Node with the condition so; the same where it is. `now` is in RFC 3339."""
    status, reason = ("False", "CalIPyIsUp") if available else ("True", "CalIPyIsDown")
    conditions = node.status.conditions
    old = next((found for found in conditions if found.type == NETWORK_UNAVAILABLE), None)
    if old is not None and (old.status, old.reason) == (status, reason):
        return node
    new = NodeCondition(
        type=NETWORK_UNAVAILABLE,
        status="False" if available else "True",
        last_heartbeat_time=now,
        last_transition_time=now if old is None or old.status != status else old.last_transition_time,
        reason=reason,
        message=message,
    )
    kept = tuple(new if found is old else found for found in conditions)
    changed = kept if old is not None else (*kept, new)
    return structs.replace(node, status=structs.replace(node.status, conditions=changed))
