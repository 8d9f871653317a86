"""Has ExaBGP carry out what the outbox orders."""

from __future__ import annotations

import asyncio
import logging
import time

from calipy.bgp.channel import Channel, CommandRefused
from calipy.bgp.commands import order_commands
from calipy.bgp.outbox import Order, Outbox

_SENT_S = 0.5
"""By then ExaBGP has sent what it was told: it looks ten times a second."""
log = logging.getLogger("calipy.bgp")


async def tell(channel: Channel, outbox: Outbox, order: Order) -> None:
    """One order; the outbox hears what has become of it. Raises Gone."""
    try:
        for command in order_commands(order):
            await channel.ask(command)
    except CommandRefused as refused:
        log.error("ExaBGP takes this not, see its log: %s", refused)
        outbox.refused(order, time.monotonic())
    else:
        outbox.landed(order, time.monotonic())


async def take_leave(channel: Channel, outbox: Outbox) -> None:
    """Takes back what peers were told that the next reload will end. Raises Gone."""
    farewells = outbox.farewells()
    for order in farewells:
        await tell(channel, outbox, order)
    if farewells:
        # ExaBGP answers when it has queued a command; nothing tells when it has sent it.
        await asyncio.sleep(_SENT_S)
