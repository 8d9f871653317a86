"""This node's place in the cluster: its Node object and the addresses in its annotations, found at start and followed
while the host's links or the Node change (calico/node looks every minute; we hear of it)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol

from calipy.datastore.stores import NotFound, Store, StoreError
from calipy.explain.report import AddressReport
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
_AGAIN_S = 10.0
"""So soon can-reach is asked again where it finds none."""
LOOK_UP_MOST_S = 20.0
"""For can-reach's destination, where it is a name: time for three name servers, of which two don't answer
(resolv.conf(5): 5 s for each)."""
FIRST_LOOK_S = 2.0
"""The same at start, for a node that has an address already: its pods are not to wait for name servers."""


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
        self._reports: dict[int, AddressReport] = {}
        self._facts: object = None
        """What of the Node it all rests on, as it was last seen."""
        self.problem = ""
        """Why the node has not the address that it should have."""
        self.forbidden: tuple[str, ...] = ()
        """First objects of the cluster that this node would make, and may not."""

    def moved(self) -> None:
        """Links or addresses have changed."""
        self._moved.set()

    def follow(self, node: Node | None) -> None:
        """The store has news of Nodes; `node` is ours. What others have changed of it may matter."""
        if self._facts != _facts(node):
            self._moved.set()

    def reports(self) -> tuple[AddressReport, ...]:
        """By family, what was found and what was considered."""
        return tuple(report for _, report in sorted(self._reports.items()))

    async def introduce(self) -> None:
        """First objects of the cluster, this node's own, and where it is. Returns when the store has all of it. A node
        for which no address is found goes on with the last one, if a link still has that; else it waits for one."""
        while True:
            self._moved.clear()
            try:
                await self._ensure_cluster()
                await self._ensure()
                number = self._settings.as_number  # where none is given, the annotation is the operator's
                await self._settle({nodes.AS_NUMBER: number} if number else {}, first=True)
                return
            except (StoreError, Refused, NoAddress) as error:
                self._complain(str(error))
            await self._wait(_RETRY_S)

    async def _ensure_cluster(self) -> None:
        cluster = bootstrap.Cluster(
            cluster_type=self._settings.cluster_type,
            pools=self._settings.pools,
            hosts=tuple(found.address for found in self._host.addresses),
        )
        forbidden = await bootstrap.ensure_cluster(self._store, cluster)
        for problem in forbidden:
            if problem not in self.forbidden:
                log.error("node %s: %s", self._settings.node, problem)
        self.forbidden = forbidden

    async def _ensure(self) -> None:
        """The Node: made here on the embedded store, by kubelet in Kubernetes. Raises NotFound."""
        name = self._settings.node
        if self._settings.embedded:
            await identity.ensure(self._store, name, self._settings.node_labels)
            return
        try:
            await self._store.get(nodes.KIND, name)
        except NotFound as error:
            remedy = "kubelet registers it; if it has, set NODENAME to the name that it has there"
            raise NotFound(f"{error}; {remedy}") from error

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
        every_s = self._settings.poll_interval_s
        return min(_AGAIN_S, every_s) if self.problem else every_s

    def _asked(self) -> tuple[tuple[int, str, Autodetection], ...]:
        """By family: what is asked for, and the method."""
        settings = self._settings
        return (4, settings.ip, settings.ip_method), (6, settings.ip6, settings.ip6_method)

    async def _settle(self, notes: dict[str, str | None], *, first: bool) -> None:
        """Writes down `notes` and the addresses that are found. Where none is, or another Node has it, the one that the
        node has stays; at `first` only if a link still has that. Raises NoAddress, StoreError, Refused."""
        node = (await self._store.get(nodes.KIND, self._settings.node)).value
        missing: list[str] = []
        for family, asked, method in self._asked():
            current = node.metadata.annotations.get(identity.ADDRESSES[family], "")
            stays = self._has(current) if first else bool(current)
            evidence = await self._evidence(
                node, family, asked, method, FIRST_LOOK_S if first and stays else LOOK_UP_MOST_S
            )
            try:
                choice = choose(asked, method, family, evidence)
                await self._check(family, choice, current)
            except NoAddress as error:
                self._report(family, current if stays else "", str(error), error.considered)
                if not stays:
                    raise
                missing.append(f"{error}; the last one stays")
                continue
            notes[identity.ADDRESSES[family]] = choice.address if choice else None
            self._tell(family, choice)
        stored = await identity.annotate(self._store, self._settings.node, notes)
        self._facts = _facts(stored.value)
        self._complain("; ".join(missing))

    async def _check(self, family: int, choice: Choice | None, current: str) -> None:
        """A new address may be no other Node's; who had it first keeps it. Raises NoAddress, StoreError."""
        if choice is None or identity.same(choice.address, current) or not self._settings.check_node_address:
            return
        async for _, other in identity.holders(self._store, self._settings.node, {family: choice.address}):
            raise NoAddress(
                f"IPv{family} address {choice.address} for this node ({choice.reason}) is Node/{other}'s already; give "
                f"one of the two another address, or delete Node/{other} if that machine is gone, or set "
                "DISABLE_NODE_IP_CHECK to true",
                choice.considered,
            )

    def _has(self, current: str) -> bool:
        """Whether a link has the address, 10.9.0.11/24."""
        address = current.partition("/")[0]
        return any(found.address == address for found in self._host.addresses)

    async def _evidence(
        self, node: Node, family: int, asked: str, method: Autodetection, patience_s: float
    ) -> Evidence:
        """`patience_s` is how long a look-up of can-reach's destination may take."""
        source, unreachable = "", ""
        if asked == "autodetect" and method.method == "can-reach":
            source, unreachable = await _source_towards(method.arguments[0], family, patience_s)
        return Evidence(
            links=self._host.links,
            addresses=tuple(self._host.addresses),
            current=node.metadata.annotations.get(identity.ADDRESSES[family], ""),
            internal=_internal(node),
            source=source,
            unreachable=unreachable,
        )

    def _tell(self, family: int, choice: Choice | None) -> None:
        if choice is None:
            self._report(family, "", "none is asked for", ())
            return
        self._report(family, choice.address, choice.reason, choice.considered)
        if self._told.get(family) != choice.address:
            self._told[family] = choice.address
            log.info("this node's IPv%d address is %s: %s", family, choice.address, choice.reason)
            for line in choice.considered:
                log.info("IPv%d address considered: %s", family, line)

    def _report(self, family: int, address: str, reason: str, considered: tuple[str, ...]) -> None:
        _, asked, method = self._asked()[0 if family == 4 else 1]
        self._reports[family] = AddressReport(
            family=family, asked=asked, method=str(method), address=address, reason=reason, considered=considered
        )

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


def _internal(node: Node) -> tuple[str, ...]:
    return tuple(address.address for address in node.status.addresses if address.type == "InternalIP")


def _facts(node: Node | None) -> object:
    if node is None:
        return None
    notes = node.metadata.annotations
    return _internal(node), [notes.get(name) for name in identity.ADDRESSES.values()]
