"""This node's place in the cluster: its Node object and the addresses in its annotations, found at start and followed
while the host's links change (calico/node looks every minute; we hear of it)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

from calipy.datastore.stores import Store, StoreError
from calipy.model.links import Link, LinkAddress
from calipy.node import bootstrap, identity
from calipy.node.addresses import Choice, Evidence, NoAddress, choose
from calipy.node.reach import source_towards
from calipy.resources import nodes
from calipy.resources.metadata import Refused
from calipy.resources.nodes import Node
from calipy.settings import Autodetection, Settings

log = logging.getLogger("calipy.agent.whereabouts")

_RETRY_S = 2.0
_LOOK_EVERY_S, _AGAIN_S = 60.0, 10.0
"""How often can-reach is asked by the clock: calico/node's AUTODETECT_POLL_INTERVAL; sooner where it finds none."""
LOOK_UP_MOST_S = 20.0
"""For can-reach's destination, where it is a name: time for three name servers, of which two don't answer
(resolv.conf(5): 5 s for each)."""
FIRST_LOOK_S = 2.0
"""The same at start, for a node that has an address already: its pods are not to wait for name servers."""
_NOTES = {4: nodes.IPV4_ADDRESS, 6: nodes.IPV6_ADDRESS}


class Host(Protocol):
    """The host's links and addresses, as far as the kernel has told."""

    links: dict[int, Link]
    addresses: set[LinkAddress]


class Whereabouts:
    """Keeps the Node object right."""

    def __init__(self, store: Store, settings: Settings, host: Host) -> None:
        self._store = store
        self._settings = settings
        self._host = host
        self._moved = asyncio.Event()
        self._told: dict[int, str] = {}
        self.problem = ""
        """Why the node has not the address that it should have."""

    def moved(self) -> None:
        """Links or addresses have changed."""
        self._moved.set()

    async def introduce(self) -> None:
        """First objects of the cluster, this node's own, and where it is. Returns when the store has all of it. A node
        for which no address is found goes on with the last one, if a link still has that; else it waits for one."""
        while True:
            self._moved.clear()
            try:
                pools = {} if self._settings.no_default_pools else self._settings.pools
                await bootstrap.ensure_cluster(self._store, pools)
                await identity.ensure(self._store, self._settings.node, self._settings.node_labels)
                number = self._settings.as_number  # where none is given, the annotation is the operator's
                await self._settle({nodes.AS_NUMBER: number} if number else {}, first=True)
                return
            except (StoreError, Refused, NoAddress) as error:
                self._complain(str(error))
            await self._wait(_RETRY_S)

    async def keep(self) -> None:
        """Follows the host's addresses, without end. Where a method finds none any more, the last one stays."""
        while True:
            await self._wait(self._patience_s())
            self._moved.clear()
            try:
                await self._settle({}, first=False)
            except NoAddress as error:
                self._complain(str(error))
            except (StoreError, Refused) as error:
                self._complain(str(error))
                await self._wait(_RETRY_S)
                self._moved.set()

    async def _wait(self, seconds: float | None) -> None:
        """For news of the host, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()

    def _patience_s(self) -> float | None:
        """can-reach depends on routes and on names too, and of those nobody tells."""
        if not any(method.method == "can-reach" for _, _, method in self._asked()):
            return None
        return _AGAIN_S if self.problem else _LOOK_EVERY_S

    def _asked(self) -> tuple[tuple[int, str, Autodetection], ...]:
        """By family: what is asked for, and the method."""
        settings = self._settings
        return (4, settings.ip, settings.ip_method), (6, settings.ip6, settings.ip6_method)

    async def _settle(self, notes: dict[str, str | None], *, first: bool) -> None:
        """Writes down `notes` and the addresses that are found. Where none is, the one that the node has stays; at
        `first` only if a link still has it. Raises NoAddress, StoreError, Refused."""
        node = (await self._store.get(nodes.KIND, self._settings.node)).value
        missing: list[str] = []
        for family, asked, method in self._asked():
            current = node.metadata.annotations.get(_NOTES[family], "")
            stays = self._has(current) if first else bool(current)
            source, unreachable = "", ""
            if asked == "autodetect" and method.method == "can-reach":
                patience_s = FIRST_LOOK_S if first and stays else LOOK_UP_MOST_S
                source, unreachable = await _source_towards(method.arguments[0], family, patience_s)
            evidence = self._evidence(node, current, source, unreachable)
            try:
                choice = choose(asked, method, family, evidence)
            except NoAddress as error:
                if not stays:
                    raise
                missing.append(f"{error}; the last one stays")
                continue
            notes[_NOTES[family]] = choice.address if choice else None
            self._tell(family, choice)
        await identity.annotate(self._store, self._settings.node, notes)
        self._complain("; ".join(missing))

    def _has(self, current: str) -> bool:
        """Whether a link has the address, 10.9.0.11/24."""
        address = current.partition("/")[0]
        return any(found.address == address for found in self._host.addresses)

    def _evidence(self, node: Node, current: str, source: str, unreachable: str) -> Evidence:
        return Evidence(
            links=self._host.links,
            addresses=tuple(self._host.addresses),
            current=current,
            internal=tuple(address.address for address in node.status.addresses if address.type == "InternalIP"),
            source=source,
            unreachable=unreachable,
        )

    def _tell(self, family: int, choice: Choice | None) -> None:
        if choice is not None and self._told.get(family) != choice.address:
            self._told[family] = choice.address
            log.info("this node's IPv%d address is %s: %s", family, choice.address, choice.reason)

    def _complain(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("node %s: %s", self._settings.node, problem)
        self.problem = problem


async def _source_towards(destination: str, family: int, patience_s: float) -> tuple[str, str]:
    """The source address, or why there is none."""
    try:
        return await source_towards(destination, family, patience_s), ""
    except OSError as error:
        return "", error.strerror or str(error)
