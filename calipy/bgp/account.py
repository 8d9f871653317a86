"""ExaBGP's own account of where it stands: its sessions, what peers have announced, what it was told for them.

It is taken in as it comes, line by line among the news; what has come of it is posted at once: no route goes and comes
back.
"""

from __future__ import annotations

import logging
import time

from calipy.bgp.answer_lines import decode_neighbors, decode_route
from calipy.bgp.channel import Channel
from calipy.bgp.commands import SHOW_NEIGHBORS, SHOW_RECEIVED, SHOW_TOLD, refresh_command
from calipy.bgp.knowledge import Knowledge, refuse
from calipy.bgp.learned import TOLD_MOST_S
from calipy.bgp.messages import EndOfRib, Neighbor, Opened, Shutdown, Unreadable, Up
from calipy.bgp.standings import ESTABLISHED
from calipy.resources.cidrs import family_of

log = logging.getLogger("calipy.bgp")


async def take_account(channel: Channel, known: Knowledge) -> None:
    """Asks ExaBGP where it stands; peers that may not have told all are asked to tell it again. Raises CommandRefused,
    Gone."""
    known.asks_again = False
    known.routes.hold()
    account = _Account(known)
    await channel.ask(SHOW_NEIGHBORS, account.take_neighbors)
    await channel.ask(SHOW_RECEIVED, account.take_received)
    await channel.ask(SHOW_TOLD, account.take_told)
    account.close()
    for address in account.unfinished():
        await channel.ask(refresh_command(address))


class _Account:
    """One account, line by line."""

    def __init__(self, known: Knowledge) -> None:
        self._known = known
        self._established: list[Neighbor] = []
        self._complete: set[str] = set()
        """Peers that have told all, whose routes ExaBGP therefore has complete."""

    def take_neighbors(self, line: bytes) -> None:
        """Compares ExaBGP's account of the sessions with ours."""
        neighbors = decode_neighbors(line)
        if isinstance(neighbors, Unreadable):
            return refuse(neighbors)
        known, now_s = self._known, time.monotonic()
        known.accounted = True
        known.routes.take(Shutdown())
        same = known.standings.found(neighbors, now_s)
        for neighbor in neighbors:
            if neighbor.state != ESTABLISHED:
                continue
            self._established.append(neighbor)
            self._reopen(neighbor, now_s)
            had_ended = neighbor.peer in same and not self._waits_for(neighbor.peer)
            if neighbor.duration_s >= TOLD_MOST_S or had_ended:
                self._complete.add(neighbor.peer)

    def _reopen(self, neighbor: Neighbor, now_s: float) -> None:
        """A session that came up when we weren't there."""
        known = self._known
        configured = known.peers.get(neighbor.peer)
        if configured is not None and neighbor.peer not in known.opened:
            opened = Opened(
                peer=neighbor.peer,
                router_id=neighbor.router_id,
                as_number=neighbor.as_number,
                hold_time_s=configured.hold_time_s,
                restart_time_s=configured.restart_time_s if neighbor.graceful_restart else None,
                families_kept=(family_of(neighbor.peer),),
            )
            known.routes.take(opened)
        known.routes.take(Up(peer=neighbor.peer, router_id=""))
        known.outbox.up(neighbor.peer, now_s)

    def _waits_for(self, address: str) -> bool:
        peer = self._known.peers.get(address)
        return peer is None or self._known.routes.waits_for(peer.name)

    def take_received(self, line: bytes) -> None:
        """A route that a peer has announced."""
        update = decode_route(line)
        if isinstance(update, Unreadable):
            return refuse(update)
        if update is not None and update.peer in self._known.standings.up():
            self._known.routes.take(update)

    def take_told(self, line: bytes) -> None:
        """A route that ExaBGP was given for a peer."""
        update = decode_route(line)
        if isinstance(update, Unreadable):
            return refuse(update)
        if update is not None:
            self._known.outbox.found(update.peer, [path.prefix for path in update.announced])

    def close(self) -> None:
        """All is heard that ExaBGP has; of the peers that have told all, that is all there is."""
        known = self._known
        self._complete |= known.ended
        for address in self._complete & known.standings.up():
            known.take(EndOfRib(peer=address, family=family_of(address)))
        known.routes.regained()
        log.info("ExaBGP is connected, %d sessions are up", len(known.standings.up()))

    def unfinished(self) -> tuple[str, ...]:
        """Peers of which nobody knows whether their End-of-RIB came and went, or is yet to come. The answer to a
        request to tell all again has an end, too."""
        told = self._complete | self._known.ended
        return tuple(n.peer for n in self._established if n.route_refresh and n.peer not in told)
