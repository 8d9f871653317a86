"""What the peers have told, as others get it: each outcome of the decision process when it has moved.

While there is no connection to ExaBGP routes are kept as RFC 4724 has them kept while a peer restarts, for its restart
time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from calipy.bgp.messages import Down, Message
from calipy.bgp.peers import DEFAULT_HOLD_S, Topology
from calipy.bgp.rib import Rib
from calipy.bgp.waiting import until
from calipy.model.routes import LearnedRoute

TOLD_MOST_S = 60.0
"""So long after the start we wait for peers to tell all that they know."""


class LearnedRoutes:
    """`post` gets outcomes by prefix, None = withdrawn; `told` is called once, when the peers have said what they
    know."""

    def __init__(self, post: Callable[[Mapping[str, LearnedRoute | None]], object], told: Callable[[], object]) -> None:
        self._post_routes, self._tell = post, told
        self._start_s = time.monotonic()
        self._rib = Rib()
        self._topology: Topology | None = None
        self._tick = asyncio.Event()
        self._moved: set[str] = set()
        self._posted: dict[str, LearnedRoute] = {}
        self._held = self._has_told = False
        self._lost_s: float | None = self._start_s

    # --- what happens ---

    def configure(self, topology: Topology) -> None:
        """The sessions that there are to be."""
        self._topology = topology
        self._moved |= self._rib.configure(topology, time.monotonic())
        self._tick.set()

    def take(self, message: Message) -> None:
        """What ExaBGP said. It is posted with the next `post`."""
        self._moved |= self._rib.take(message, time.monotonic())
        self._tick.set()

    def hold(self) -> None:
        """Nothing is posted until `regained` or `lost`."""
        self._held = True

    def regained(self) -> None:
        """It is known again where ExaBGP stands."""
        self._held, self._lost_s = False, None
        self.post()

    def lost(self) -> None:
        """ExaBGP can't be talked to."""
        self._held, self._lost_s = False, time.monotonic()
        self._tick.set()

    def post(self) -> None:
        """Tells of the prefixes whose outcome has moved."""
        if self._held or not self._moved:
            return
        moved, self._moved = self._moved, set()
        routes: dict[str, LearnedRoute | None] = {}
        for prefix in moved:
            outcome = self._rib.outcome(prefix)
            if outcome != self._posted.get(prefix):
                routes[prefix] = outcome
            if outcome is None:
                self._posted.pop(prefix, None)
            else:
                self._posted[prefix] = outcome
        if routes:
            self._post_routes(routes)

    # --- what is known ---

    @property
    def connected(self) -> bool:
        """True while ExaBGP can be talked to, and it is known where it stands."""
        return self._lost_s is None

    def received(self, address: str) -> int:
        """How many prefixes a peer has announced."""
        return self._rib.received(address)

    def stale(self, address: str) -> bool:
        """True while a peer's routes are held without a session."""
        lost = self._lost_s is not None and self._rib.received(address) > 0
        return lost or self._rib.stale(address)

    def waits_for(self, name: str) -> bool:
        """True until the peer of that name has told all that it knows."""
        return name in self._rib.waiting()

    # --- time ---

    async def run(self) -> None:
        """Ends what has lasted long enough: stale paths, the wait for the peers, the wait for ExaBGP. Without end."""
        while True:
            now_s = time.monotonic()
            self._moved |= self._rib.expire(now_s)
            waits = [self._rib.deadline(), self._give_up(now_s), self._tell_once(now_s)]
            self.post()
            await until(self._tick, min((wait for wait in waits if wait is not None), default=None))

    def _give_up(self, now_s: float) -> float | None:
        """Without ExaBGP a peer's routes are kept for its restart time, or its hold time where it has none."""
        if self._lost_s is None or self._topology is None:
            return None
        waits = []
        for peer in self._topology.peers:
            until_s = self._lost_s + (peer.restart_time_s or peer.hold_time_s or DEFAULT_HOLD_S)
            if until_s > now_s:
                waits.append(until_s)
            else:
                self._moved |= self._rib.take(Down(peer=peer.address, reason="ExaBGP is gone"), now_s)
        return min(waits, default=None)

    def _tell_once(self, now_s: float) -> float | None:
        if self._has_told or self._topology is None:
            return None
        until_s = self._start_s + TOLD_MOST_S
        if self._rib.waiting() and now_s < until_s:
            return until_s
        self._has_told = True
        self.post()
        self._tell()
        return None
