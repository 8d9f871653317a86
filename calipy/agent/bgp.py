"""BGP in the agent: store, endpoints and secrets in; sessions, learned routes and readiness out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from calipy.agent.feed import Feed
from calipy.bgp import announcements, topology
from calipy.bgp.exabgp_config import refused
from calipy.bgp.passwords import Passwords
from calipy.bgp.peers import Peer, Topology
from calipy.bgp.session import Session
from calipy.conversion.nodes import node_address
from calipy.datastore.stores import Store
from calipy.explain.report import SessionReport
from calipy.felix.calc.world import Event, RoutesLearned
from calipy.felix.dataplane import Dataplane
from calipy.felix.drivers.routes import LEARNED_LEFTOVER
from calipy.felix.endpoints import Endpoints
from calipy.model.routes import LearnedRoute
from calipy.resources import bgp_configurations, bgp_peers
from calipy.resources.secrets import SecretKeySelector
from calipy.settings import Settings
from calipy.telemetry import Metrics

STARTUP_S = 30.0
"""So long after the start each session must be up for the node to be ready; later one is enough (Calico)."""
_SECRETS_EVERY_S = 30.0
"""Nobody tells of a Secret that changes: so often they are read again."""
_TOPOLOGY = frozenset({"Node", "BGPConfiguration", "BGPPeer"})
_ANNOUNCED = frozenset({"BlockAffinity", "IPPool", "BGPConfiguration"})
_STATES = ("up", "connected", "down")
log = logging.getLogger("calipy.agent.bgp")


class Bgp:
    """One node's BGP."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        feed: Feed,
        endpoints: Endpoints,
        dataplane: Dataplane,
        post: Callable[[Sequence[Event]], asyncio.Future[int]],
        metrics: Metrics,
    ) -> None:
        self._settings, self._feed, self._endpoints = settings, feed, endpoints
        self._dataplane, self._post = dataplane, post
        self._start_s = time.monotonic()
        self._changed = asyncio.Event()
        self._new_topology = True
        self._topology = Topology(node=settings.node)
        self._passwords = Passwords(store, settings.namespace)
        self._refused: Mapping[str, str] = {}
        self._problems: tuple[str, ...] = ()
        self._session = Session(settings.bgp_folder, self._learned, self._told)
        feed.listen(self._fed)
        endpoints.listen(self._changed.set)
        for state in _STATES:
            metrics.bgp_peers.labels(state).set_function(partial(self._count, state))

    @property
    def wanted(self) -> bool:
        """False where routes are somebody else's business: then there is no session, and what BGP left goes."""
        return self._settings.networking_backend == "bird"

    def hold_leftovers(self) -> None:
        """Keeps the routes that BGP learned before this agent started, until the peers have said what they know."""
        self._dataplane.hold(LEARNED_LEFTOVER, "the BGP peers have not yet said what they know")

    async def run(self) -> None:
        """Follows the store and the endpoints, without end. Raises OSError where the pipe's socket can't be made."""
        self._changed.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._session.run())
            group.create_task(self._follow())

    def sessions(self) -> tuple[SessionReport, ...]:
        """All sessions, by name."""
        now_s = time.monotonic()
        return tuple(self._report(peer, now_s) for peer in self._topology.peers)

    def problem(self) -> str:
        """Why the node isn't ready as far as BGP goes; empty if it is."""
        if not self.wanted:
            return ""
        return self._session.problem or readiness(self.sessions(), time.monotonic() - self._start_s)

    def degradation(self) -> str:
        """What of the configuration isn't followed, and which peers lack their password. Calico's node is ready with
        all of that: only sessions count."""
        return "; ".join(self._problems) if self.wanted else ""

    # --- what happens ---

    def _learned(self, routes: Mapping[str, LearnedRoute | None]) -> None:
        self._post([RoutesLearned(routes)])

    def _told(self) -> None:
        """The peers have told all. What they told is on its way through the calculation: it comes first."""
        self._post([]).add_done_callback(lambda _: self._dataplane.release(LEARNED_LEFTOVER))

    def _fed(self, kinds: frozenset[str]) -> None:
        self._new_topology = self._new_topology or bool(kinds & _TOPOLOGY)
        if kinds & (_TOPOLOGY | _ANNOUNCED):
            self._changed.set()

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SECRETS_EVERY_S if self._references() else None):
                    await self._changed.wait()
            self._changed.clear()
            await self.settle()

    async def settle(self) -> None:
        """Has the session be as store and endpoints want it now."""
        if self._new_topology:
            self._new_topology = False
            self._topology = self._compute_topology()
        references = self._references()
        await self._passwords.read(references.values())
        known = self._passwords.known
        self._configure({name: known[reference] for name, reference in references.items() if reference in known})

    def _compute_topology(self) -> Topology:
        return topology.compute(
            self._settings.node,
            {node.metadata.name: node_address(node) for node in self._feed.all_nodes()},
            self._feed.all(bgp_configurations.KIND),
            self._feed.all(bgp_peers.KIND),
            hold_time_s=self._settings.hold_time_s,
            router_id=self._settings.router_id,
        )

    def _configure(self, passwords: Mapping[str, str]) -> None:
        self._refused = refused(self._topology, passwords, self._passwords.unknown)
        problems = (*self._topology.problems, *_by_reason(self._refused))
        for problem in problems:
            if problem not in self._problems:
                log.error("%s", problem)
        self._problems = problems
        announced = announcements.compute(
            self._settings.node,
            self._topology,
            self._feed.affinities(),
            self._feed.pools(),
            [address for endpoint in self._endpoints.attached for address in endpoint.addresses],
            self._feed.all(bgp_configurations.KIND),
        )
        self._session.configure(self._topology, passwords, announced)

    def _references(self) -> dict[str, SecretKeySelector]:
        return {peer.name: peer.password for peer in self._topology.peers if peer.password is not None}

    # --- what is told ---

    def _count(self, state: str) -> int:
        return sum(self._session.standing(peer).state == state for peer in self._topology.peers)

    def _report(self, peer: Peer, now_s: float) -> SessionReport:
        standing = self._session.standing(peer)
        return SessionReport(
            name=peer.name,
            peer=peer.address,
            node=peer.node,
            kind=peer.kind,
            as_number=peer.as_number,
            family=peer.family,
            state=standing.state,
            since_s=max(0.0, now_s - standing.since_s),
            reason=self._refused.get(peer.name, standing.reason),
            received=self._session.received(peer),
            announced=self._session.announced(peer),
            stale=self._session.stale(peer),
        )


def readiness(sessions: Sequence[SessionReport], age_s: float) -> str:
    """Calico's rule: without peers a node is ready; in its first 30 s each session must be up and no routes be held of
    one that was before; later one that is up is enough. Gives what is missing."""
    down = [session for session in sessions if session.state != "up"]
    if age_s < STARTUP_S:
        held = [session.name for session in sessions if session.stale and session.state == "up"]
        waiting = [_named(session) for session in down] + [f"{name} has not yet told all again" for name in held]
        return f"sessions not up: {', '.join(waiting)}" if waiting else ""
    if sessions and len(down) == len(sessions):
        return f"no session is up: {', '.join(map(_named, down))}"
    return ""


def _named(session: SessionReport) -> str:
    return f"{session.name} ({session.reason})" if session.reason else session.name


def _by_reason(refused: Mapping[str, str]) -> Iterator[str]:
    """One line for all peers that are refused for the same reason."""
    names: dict[str, list[str]] = {}
    for name, reason in refused.items():
        names.setdefault(reason, []).append(name)
    for reason, peers in names.items():
        yield f"{', '.join(peers)}: {reason}"
