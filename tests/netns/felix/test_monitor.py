"""The monitor where the kernel breaks readings off: what was to be read is read later, and no news is lost."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import Event, ForeignRoutesRead, LinkSeen
from calipy.felix.drivers.links import LinksDriver
from calipy.felix.drivers.monitor import Monitor
from calipy.netlink.messages import Message
from calipy.netlink.socket import ROUTE, NetlinkSocket


class Interrupted(NetlinkSocket):
    """A socket whose next dumps are broken off."""

    failures = 0

    def dump(self, message: Message) -> list[memoryview]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EAGAIN, "interrupted 10 times by changes")
        return super().dump(message)


class Losses:
    """Nobody who wants to know."""

    def lost_routes(self, index: int) -> None: ...

    def lost_route(self, key: Any) -> None: ...

    def shaken(self, link: Any) -> None: ...


async def test_a_reading_that_is_broken_off_is_done_later_and_costs_no_news(namespaces: Any) -> None:
    host = namespaces("n1")
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    host.run("ip", "link", "set", "up1", "up")
    host.run("ip", "link", "set", "up0", "up")
    host.run("ip", "route", "add", "10.50.0.0/16", "dev", "up0")
    events: list[Event] = []
    news = asyncio.Event()

    def post(more: Any) -> None:
        events.extend(more)
        news.set()

    async def until(true: Any) -> None:
        async with asyncio.timeout(5):
            while not true():
                news.clear()
                await news.wait()

    def routes() -> set[str]:
        seen = [event for event in events if isinstance(event, ForeignRoutesRead)]
        return {route.prefix for route in seen[-1].routes} if seen else set()

    with NetlinkSocket.open(ROUTE, namespace=host.fd) as socket:
        reader = Interrupted.open(ROUTE, namespace=host.fd)
        assert isinstance(reader, Interrupted)
        links = LinksDriver(socket, host.fd)
        monitor = Monitor(post, lambda *_: None, Losses(), links, FelixSettings(), host.fd, reader)
        try:
            await monitor.start()
            assert "10.50.0.0/16" in routes()
            events.clear()
            reader.failures = 2
            host.run("ip", "link", "set", "up0", "down")  # the kernel says nothing of the IPv4 route
            await until(lambda: any(isinstance(e, LinkSeen) and not e.link.up for e in events))
            await until(lambda: any(isinstance(e, ForeignRoutesRead) for e in events))
            assert "10.50.0.0/16" not in routes()
            assert reader.failures == 0
        finally:
            monitor.close()
            links.close()
