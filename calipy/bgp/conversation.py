"""A connection with ExaBGP, from its beginning to its end: where ExaBGP stands, then what it is to be told."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from calipy.bgp.account import take_account
from calipy.bgp.channel import Channel, CommandRefused, Gone
from calipy.bgp.event_lines import decode
from calipy.bgp.knowledge import Knowledge
from calipy.bgp.placement import Placement
from calipy.bgp.reloading import Reloading
from calipy.bgp.telling import tell
from calipy.bgp.waiting import until

_AGAIN_S = 1.0
"""Before a connection that is no good is given up: its successor may be no better."""
log = logging.getLogger("calipy.bgp")


class Conversation:
    """`wake` is set when there may be something to do; `heard` is called after anything has happened."""

    def __init__(
        self,
        known: Knowledge,
        placement: Placement,
        reloading: Reloading,
        wake: asyncio.Event,
        heard: Callable[[], None],
    ) -> None:
        self._known, self._placement, self._reloading = known, placement, reloading
        self._wake, self._heard = wake, heard

    async def run(self, raw: socket.socket) -> None:
        """Over a connected socket, until it ends."""
        channel = await Channel.on(raw, self._hear)
        try:
            async with asyncio.TaskGroup() as group:
                driver = group.create_task(self._drive(channel))
                await channel.listen()
                driver.cancel()
        finally:
            channel.close()
            self._known.lost()
            self._reloading.lost()
            self._heard()
            log.warning("the connection to ExaBGP is lost; routes are kept for the peers' restart times")

    def _hear(self, line: bytes) -> None:
        for message in decode(line):
            self._known.take(message)
        self._known.routes.post()
        self._heard()

    async def _drive(self, channel: Channel) -> None:
        try:
            while not self._known.configured:
                await until(self._wake, None)
            await self._learn(channel)
            while True:
                await self._turn(channel)
        except (Gone, CommandRefused) as error:
            log.warning("%s; starting over", error)
            await asyncio.sleep(_AGAIN_S)
            channel.close()

    async def _turn(self, channel: Channel) -> None:
        """Does the next thing that there is to do, or waits for it."""
        outbox, placed = self._known.outbox, self._placement.placed
        if self._known.asks_again:
            await self._learn(channel)
        if placed is not None and await self._reloading.agree(channel, placed):
            self._heard()
        order = outbox.next(time.monotonic())
        if order is None:
            await until(self._wake, outbox.deadline())
        else:
            await tell(channel, outbox, order)
            self._heard()

    async def _learn(self, channel: Channel) -> None:
        await take_account(channel, self._known)
        self._heard()
