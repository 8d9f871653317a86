"""This node's place in the cluster: its Node object and the addresses in its annotations, found at start and followed
while the host's links change (calico/node looks every minute; we hear of it)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import Executor
from typing import Protocol

from calipy.datastore.stores import Store, StoreError
from calipy.model.links import Link, LinkAddress
from calipy.node import bootstrap, identity
from calipy.node.addresses import Evidence, NoAddress, choose, source_towards
from calipy.resources import nodes
from calipy.resources.metadata import Refused
from calipy.resources.nodes import Node
from calipy.settings import Autodetection, Settings

log = logging.getLogger("calipy.agent.whereabouts")

_RETRY_S = 2.0
_NOTES = {4: nodes.IPV4_ADDRESS, 6: nodes.IPV6_ADDRESS}


class Host(Protocol):
    """The host's links and addresses, as far as the kernel has told."""

    links: dict[int, Link]
    addresses: set[LinkAddress]


class Whereabouts:
    """Keeps the Node object right."""

    def __init__(self, store: Store, settings: Settings, host: Host, thread: Executor) -> None:
        self._store = store
        self._settings = settings
        self._host = host
        self._thread = thread
        self._moved = asyncio.Event()
        self._told: dict[int, str] = {}
        self.problem = ""
        """Why the node has not the address that it should have."""

    def moved(self) -> None:
        """Links or addresses have changed."""
        self._moved.set()

    async def introduce(self) -> None:
        """First objects of the cluster, this node's own, and where it is. Returns when the store has all of it; a node
        without an address waits for one."""
        while True:
            self._moved.clear()
            try:
                pools = {} if self._settings.no_default_pools else self._settings.pools
                await bootstrap.ensure_cluster(self._store, pools)
                await identity.ensure(self._store, self._settings.node, self._settings.node_labels)
                number = self._settings.as_number  # where none is given, the annotation is the operator's
                await self._settle({nodes.AS_NUMBER: number} if number else {})
                return
            except (StoreError, Refused, NoAddress) as error:
                self._complain(str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), _RETRY_S)

    async def keep(self) -> None:
        """Follows the host's addresses, without end. Where a method finds none any more, the last one stays."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self._settle({})
            except NoAddress as error:
                self._complain(f"{error}; the last one stays")
            except (StoreError, Refused) as error:
                self._complain(str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), _RETRY_S)
                self._moved.set()

    async def _settle(self, notes: dict[str, str | None]) -> None:
        node = (await self._store.get(nodes.KIND, self._settings.node)).value
        for family, asked, method in (
            (4, self._settings.ip, self._settings.ip_method),
            (6, self._settings.ip6, self._settings.ip6_method),
        ):
            choice = choose(asked, method, family, await self._evidence(node, family, method))
            notes[_NOTES[family]] = choice.address if choice else None
            said = f"{choice.address}: {choice.reason}" if choice else ""
            if said and self._told.get(family) != said:
                self._told[family] = said
                log.info("this node's IPv%d address is %s", family, said)
        await identity.annotate(self._store, self._settings.node, notes)
        self.problem = ""

    async def _evidence(self, node: Node, family: int, method: Autodetection) -> Evidence:
        source, unreachable = "", ""
        if method.method == "can-reach":
            loop = asyncio.get_running_loop()
            try:
                source = await loop.run_in_executor(self._thread, source_towards, method.arguments[0], family)
            except OSError as error:
                unreachable = error.strerror or str(error)
        return Evidence(
            links=self._host.links,
            addresses=tuple(self._host.addresses),
            current=node.metadata.annotations.get(_NOTES[family], ""),
            internal=tuple(address.address for address in node.status.addresses if address.type == "InternalIP"),
            source=source,
            unreachable=unreachable,
        )

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.error("node %s: %s", self._settings.node, problem)
        self.problem = problem
