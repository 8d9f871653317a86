"""What this node has programmed of the policies, told to everybody: one NodeReport, written when it has changed and at
most once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from msgspec import structs

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, StoreError
from calipy.felix.objects import Owner
from calipy.felix.rules.origins import policy_id
from calipy.resources import node_reports
from calipy.resources.metadata import Key, ObjectMeta, Refused
from calipy.resources.node_reports import NodeReport, NodeReportStatus
from calipy.telemetry import Pulse

log = logging.getLogger("calipy.felix.report")

WRITE_EVERY_S = 1.0


def policy_key(owner: Owner) -> Key | None:
    """The object behind an owner in the kernel; None where it is no policy."""
    return policy_id(owner.name).key if owner.kind == "policy" else None


class Reporter:
    """Writes the report. `programmed` gives, by kind, the revision up to which the kernel holds all; `refused` the
    owners that the kernel refuses; `unaccepted` the objects that never got so far."""

    def __init__(
        self,
        store: Store,
        node: str,
        programmed: Callable[[], Mapping[str, int]],
        refused: Callable[[], Mapping[Owner, str]],
        unaccepted: Callable[[], Mapping[Key, str]],
        every_s: float = WRITE_EVERY_S,
    ) -> None:
        self._store = store
        self._node = node
        self._programmed = programmed
        self._refused = refused
        self._unaccepted = unaccepted
        self._every_s = every_s
        self._wake = asyncio.Event()
        self._written: NodeReportStatus | None = None
        self._problem = ""
        self.writes = 0
        self.pulse = Pulse()

    def changed(self) -> None:
        """Something may be otherwise than reported."""
        self._wake.set()

    def now(self) -> NodeReportStatus:
        """What is to be reported."""
        refused = {key: reason for owner, reason in self._refused().items() if (key := policy_key(owner)) is not None}
        return node_reports.status(self._programmed(), {**refused, **self._unaccepted()})

    async def run(self) -> None:
        """Reports without end. What can't be written is tried again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            status = self.now()
            if status == self._written:
                continue
            with self.pulse.turn():
                try:
                    await self._write(status)
                except (StoreError, Refused) as error:
                    self._tell(str(error))
                    self._wake.set()
                else:
                    self._problem = ""
            await asyncio.sleep(self._every_s)

    def _tell(self, problem: str) -> None:
        """Once, however often it is tried again."""
        if problem != self._problem:
            log.warning("NodeReport/%s can't be written: %s; trying again", self._node, problem)
        self._problem = problem

    async def _write(self, status: NodeReportStatus) -> None:
        report = NodeReport(metadata=ObjectMeta(name=self._node), status=status)
        try:
            stored = await self._store.get(node_reports.KIND, self._node)
        except NotFound:
            try:
                await self._store.create(node_reports.KIND, report)
            except Exists as error:
                raise Conflict(f"NodeReport/{self._node} was made by somebody else at the same time") from error
        else:
            if stored.value.status != status:
                await self._store.update(node_reports.KIND, stored, structs.replace(stored.value, status=status))
        self._written = status
        self.writes += 1
