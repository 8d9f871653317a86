"""The agent's side of BGP: what there is to be goes in, what the peers have told comes out.

ExaBGP reaches us through its pipe (`calipy.bgp.pipe`). Each connection starts over: ExaBGP is asked where it stands,
what the peers have announced and what they were told. So the pipe, ExaBGP or this agent may end at any time and come
back: a session that goes on isn't touched, and routes that are still announced are not moved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from calipy.bgp.conversation import Conversation
from calipy.bgp.knowledge import Knowledge
from calipy.bgp.learned import LearnedRoutes
from calipy.bgp.peers import Announcement, Peer, Topology
from calipy.bgp.pipe import SOCKET
from calipy.bgp.placement import Placement
from calipy.bgp.reloading import Reloading
from calipy.bgp.standings import Standing
from calipy.model.routes import LearnedRoute
from calipy.sockets import accept, listen


class Session:
    """`post` gets outcomes by prefix, None = withdrawn; `told` is called once, when the peers have said what they
    know. Both are called on the loop."""

    def __init__(
        self,
        folder: Path,
        post: Callable[[Mapping[str, LearnedRoute | None]], object],
        told: Callable[[], object],
    ) -> None:
        self._folder = folder
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._topology: Topology | None = None
        self._routes = LearnedRoutes(post, told)
        self._known = Knowledge(self._routes, self._wake.set)
        self._placement = Placement(folder, self._placed)
        self._reloading = Reloading(self._known.outbox)
        self._conversation = Conversation(self._known, self._placement, self._reloading, self._wake, self._notify)

    def configure(
        self, topology: Topology, passwords: Mapping[str, str], announcements: Mapping[str, tuple[Announcement, ...]]
    ) -> None:
        """What there is to be; passwords and announcements by peer name. Takes effect by and by."""
        if topology != self._topology:
            self._topology = topology
            self._known.configure(topology)
        self._placement.want(topology, passwords)
        self._known.outbox.want({peer.address: announcements.get(peer.name, ()) for peer in topology.peers})
        self._wake.set()
        self._routes.post()

    def listen(self, listener: Callable[[], None]) -> None:
        """`listener` is called after anything has happened: to a session, or to what is wrong."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Everything, without end. Raises OSError where the socket can't be made."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._placement.run())
            group.create_task(self._routes.run())
            group.create_task(self._serve())

    # --- what is known ---

    @property
    def problem(self) -> str:
        """Why ExaBGP doesn't run with what is meant; empty if it does, or is about to."""
        return self._placement.problem or self._reloading.problem

    @property
    def connected(self) -> bool:
        """True while ExaBGP can be talked to, and it is known where it stands."""
        return self._routes.connected

    def standing(self, peer: Peer) -> Standing:
        """How a session is."""
        return self._known.standings.of(peer.address)

    def received(self, peer: Peer) -> int:
        """Prefixes that the peer has announced."""
        return self._routes.received(peer.address)

    def announced(self, peer: Peer) -> int:
        """Prefixes that it was told."""
        return self._known.outbox.announced(peer.address)

    def stale(self, peer: Peer) -> bool:
        """True while its routes are held without a session."""
        return self._routes.stale(peer.address)

    # --- what happens ---

    async def _serve(self) -> None:
        """Takes the pipe's connections; the newest is the one that counts."""
        current: asyncio.Task[None] | None = None
        with contextlib.closing(listen(self._folder / SOCKET)) as listener:
            async with asyncio.TaskGroup() as group:
                while True:
                    raw = await accept(listener)
                    if current is not None:
                        current.cancel()
                        await asyncio.wait([current])
                    current = group.create_task(self._conversation.run(raw))

    def _placed(self) -> None:
        self._wake.set()
        self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()
