"""Has ExaBGP run with the file that is in place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from calipy.bgp.answer_lines import decode_neighbors
from calipy.bgp.channel import Channel
from calipy.bgp.commands import SHOW_NEIGHBORS
from calipy.bgp.knowledge import refuse
from calipy.bgp.messages import Unreadable
from calipy.bgp.outbox import Outbox
from calipy.bgp.peers import Peer
from calipy.bgp.placement import PlacedFile
from calipy.bgp.telling import take_leave

_RELOAD_S = 1.0
"""A reload that ExaBGP drops, because updates were under way, succeeds after this time."""
log = logging.getLogger("calipy.bgp")


class Reloading:
    """By a reload, or, if two of them don't help, by a restart."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._agreed = self._restarted_for = ""
        """Marks: of the file that ExaBGP runs with, and of the last one that it was restarted for."""
        self.problem = ""
        """Why ExaBGP doesn't run with the file."""

    def lost(self) -> None:
        """Nobody knows what ExaBGP runs with."""
        self._agreed = ""

    async def agree(self, channel: Channel, placed: PlacedFile) -> bool:
        """Returns when ExaBGP runs with the file, or can't be brought to; False = there was nothing to do. Raises
        CommandRefused, Gone."""
        if self._agreed == placed.mark:
            return False
        channel.say(f":hold {placed.topology.shortest_hold_s}")
        good = await self._runs_with(channel, placed) or await self._reloaded(channel, placed)
        self._agreed = placed.mark
        if good:
            self.problem = ""
            return True
        self.problem = "ExaBGP doesn't run with the peers that it was given, see its log"
        log.error("%s", self.problem)
        if self._restarted_for != placed.mark:
            self._restarted_for = placed.mark
            log.error("ExaBGP is restarted")
            await channel.ask("shutdown")
        return True

    async def _reloaded(self, channel: Channel, placed: PlacedFile) -> bool:
        await take_leave(channel, self._outbox)
        for _ in range(2):
            await channel.ask("reload")
            if await self._runs_with(channel, placed):
                return True
            await asyncio.sleep(_RELOAD_S)
            if await self._runs_with(channel, placed):
                return True
        return False

    async def _runs_with(self, channel: Channel, placed: PlacedFile) -> bool:
        """Asks for the peers, and for a mark that only this file has."""
        found: set[tuple[str, str, int, int]] = set()
        marks: list[bool] = []

        def neighbors(line: bytes) -> None:
            account = decode_neighbors(line)
            if isinstance(account, Unreadable):
                return refuse(account)
            found.update((n.peer, n.local_address, n.as_number, n.local_as) for n in account)

        def description(line: bytes) -> None:
            if line.lstrip().startswith(b"description "):
                marks.append(placed.mark.encode() in line)

        peers = placed.peers
        await channel.ask(SHOW_NEIGHBORS, neighbors)
        for address in self._outbox.addresses() - {address for address, *_ in found}:
            self._outbox.gone(address)
        if found != {(p.address, p.local_address, p.as_number, p.local_as) for p in peers}:
            return False
        if peers:
            await channel.ask(f"show neighbor configuration {_telling(peers)}", description)
        return all(marks) and bool(marks) == bool(peers)


def _telling(peers: Sequence[Peer]) -> str:
    """The address by which ExaBGP picks out the fewest neighbors: it looks for it anywhere in their names."""
    names = [f"neighbor {peer.address} local-ip {peer.local_address} " for peer in peers]
    return min((peer.address for peer in peers), key=lambda address: sum(address in name for name in names))
