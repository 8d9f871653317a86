"""What is known of the peers: how each session stands, what it has told, what ExaBGP was given for it.

It comes from ExaBGP's news; what was before anybody listened, from its own account (`account`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from calipy.bgp.learned import LearnedRoutes
from calipy.bgp.messages import Down, EndOfRib, Message, Opened, Unreadable, Up
from calipy.bgp.outbox import Outbox
from calipy.bgp.peers import Peer, Topology
from calipy.bgp.standings import Standings

log = logging.getLogger("calipy.bgp")


class Knowledge:
    """`wake` is called when there may be something to tell ExaBGP, or to ask of it."""

    def __init__(self, routes: LearnedRoutes, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.routes, self.outbox, self.standings = routes, Outbox(), Standings(time.monotonic())
        self.configured = False
        self.peers: Mapping[str, Peer] = {}
        """The configured ones, by address."""
        self.opened: set[str] = set()
        """Peers whose OPEN was heard while they were configured."""
        self.ended: set[str] = set()
        """Peers whose End-of-RIB came over this connection."""
        self.accounted = False
        """ExaBGP has said over this connection how each session stands."""
        self.asks_again = False
        """ExaBGP's account is wanted again."""

    def configure(self, topology: Topology) -> None:
        """The sessions that there are to be."""
        peers = {peer.address: peer for peer in topology.peers}
        # What a peer said while nobody asked for it is heard again only if ExaBGP is asked.
        added = peers.keys() - self.peers.keys()
        self.asks_again = self.asks_again or bool(added & self.standings.up())
        self.configured, self.peers = True, peers
        self.opened &= peers.keys()
        self.standings.want(peers)
        self.routes.configure(topology)

    def take(self, message: Message) -> None:
        """What ExaBGP said."""
        if isinstance(message, Unreadable):
            return refuse(message)
        now_s = time.monotonic()
        was_up = isinstance(message, Down) and self.standings.of(message.peer).state == "up"
        self.standings.take(message, now_s)
        match message:
            case Up(peer=peer):
                # Its OPEN came before this connection was listened to: what it said of graceful restart is asked for,
                # or its routes would go, not stay, when the session ends.
                self.asks_again = self.asks_again or peer not in self.opened
                self.outbox.up(peer, now_s)
                self._wake()
                log.info("the session with %s is up", peer)
            case Down(peer=peer):
                self.outbox.down(peer)
                self.ended.discard(peer)
                if was_up:
                    log.warning("the session with %s is down: %s", peer, self.standings.of(peer).reason)
            case Opened(peer=peer) if peer in self.peers:
                self.opened.add(peer)
            case EndOfRib(peer=peer):
                self.ended.add(peer)
            case _:
                pass
        if self.accounted or not isinstance(message, Down):
            # Before ExaBGP has given its account, what ends may be an attempt of one that was started anew, while we
            # hold what the session before it has told: the account says how each session stands.
            self.routes.take(message)

    def lost(self) -> None:
        """The connection has ended: with the pipe, with ExaBGP, or because it was no good."""
        self.standings.lost("ExaBGP doesn't answer", time.monotonic())
        self.outbox.lost()
        self.ended.clear()
        self.accounted = False
        self.routes.lost()


def refuse(line: Unreadable) -> None:
    """Says what becomes of a line that can't be read."""
    log.warning("ExaBGP wrote a line that can't be read; it is dropped: %s: %r", line.reason, line.text)
