"""The monitor's readings: broken off by the kernel they are done later, in slices they leave the loop to others, and no
news is lost meanwhile."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import AddressSeen, Event, ForeignRoutesRead, LinkSeen
from calipy.felix.drivers import monitor as module
from calipy.felix.drivers.links import LinksDriver
from calipy.felix.drivers.monitor import Monitor
from calipy.netlink.messages import Message, Overrun
from calipy.netlink.socket import ROUTE, NetlinkSocket


class Reader(NetlinkSocket):
    """A socket whose next dumps are broken off, or during whose next dump something happens."""

    failures = 0
    meanwhile: Callable[[], object] | None = None

    def dump_slices(self, message: Message) -> Iterator[list[memoryview] | None]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EAGAIN, "interrupted 10 times by changes")
        for step in super().dump_slices(message):
            yield step
            if step is not None and self.meanwhile is not None:
                meanwhile, self.meanwhile = self.meanwhile, None
                meanwhile()


class Losses:
    """Nobody who wants to know."""

    def lost_routes(self, index: int) -> None: ...

    def lost_route(self, key: Any) -> None: ...

    def shaken(self, link: Any) -> None: ...


class Watched:
    """A monitor of a host with a link up0, and what it has posted."""

    def __init__(self, host: Any, links: LinksDriver) -> None:
        self.host = host
        self.posts: list[list[Event]] = []
        self._news = asyncio.Event()
        self.notices: list[tuple[str, str]] = []
        reader = Reader.open(ROUTE, namespace=host.fd)
        assert isinstance(reader, Reader)
        self.reader = reader
        self.monitor = Monitor(self._post, self._notice, Losses(), links, FelixSettings(), host.fd, reader)

    def _post(self, events: Any) -> None:
        self.posts.append(list(events))
        self._news.set()

    def _notice(self, driver: str, what: str) -> None:
        self.notices.append((driver, what))

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not true():
                self._news.clear()
                await self._news.wait()

    @property
    def events(self) -> list[Event]:
        return [event for post in self.posts for event in post]

    def routes(self) -> set[str]:
        """The newest reading's."""
        seen = [event for event in self.events if isinstance(event, ForeignRoutesRead)]
        return {route.prefix for route in seen[-1].routes} if seen else set()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def watched(namespaces: Any) -> Any:
    @contextmanager
    def make() -> Iterator[Watched]:
        host = namespaces("n1")
        host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        host.run("ip", "link", "set", "up1", "up")
        host.run("ip", "link", "set", "up0", "up")
        host.run("ip", "route", "add", "10.50.0.0/16", "dev", "up0")
        with NetlinkSocket.open(ROUTE, namespace=host.fd) as socket:
            links = LinksDriver(socket, host.fd)
            found = Watched(host, links)
            try:
                yield found
            finally:
                found.monitor.close()
                links.close()

    return make


async def test_a_reading_that_is_broken_off_is_done_later_and_costs_no_news(watched: Any) -> None:
    with watched() as found:
        await found.monitor.start()
        assert "10.50.0.0/16" in found.routes()
        found.posts.clear()
        found.reader.failures = 2
        found.host.run("ip", "link", "set", "up0", "down")  # the kernel says nothing of the IPv4 route
        await found.until(lambda: any(not event.link.up for event in found.of(LinkSeen)))
        await found.until(lambda: found.of(ForeignRoutesRead))
        assert "10.50.0.0/16" not in found.routes()
        assert found.reader.failures == 0


def overrun(found: Watched) -> None:
    """The next notifications are lost."""
    receive = found.monitor._route.receive

    def lost(most: int = 200) -> Any:
        found.monitor._route.receive = receive  # type: ignore[method-assign]
        raise Overrun

    found.monitor._route.receive = lost  # type: ignore[method-assign]
    found.host.run("ip", "address", "add", "192.0.2.1/32", "dev", "up1")


def flap(found: Watched) -> None:
    """A link that is no workload's goes down, and its routes without a word."""
    found.host.run("ip", "link", "set", "up0", "down")


@pytest.mark.parametrize("cause", [flap, overrun])
async def test_a_reading_leaves_the_loop_to_others(
    watched: Any, monkeypatch: pytest.MonkeyPatch, cause: Callable[[Watched], None]
) -> None:
    """Each step of it is a turn of the loop here; what was heard before goes with what is read."""
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    with watched() as found:
        routes = "".join(f"route add 10.60.{i}.0/24 dev up1\n" for i in range(200))
        found.host.run("ip", "-batch", "-", text=routes)
        await found.monitor.start()
        found.posts.clear()
        cause(found)
        async with asyncio.timeout(10):
            turns = 0
            while not found.of(LinkSeen):
                await asyncio.sleep(0)
                turns += 1
        assert turns > 200
        assert isinstance(found.posts[-1][-1], ForeignRoutesRead), "one post has the link and the routes"
        assert len(found.routes()) >= 200


@pytest.mark.parametrize("cause", [flap, overrun])
async def test_what_happens_during_a_reading_is_heard_after_it(
    watched: Any, monkeypatch: pytest.MonkeyPatch, cause: Callable[[Watched], None]
) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    with watched() as found:
        found.host.run("ip", "route", "add", "10.70.0.0/16", "dev", "up1")
        await found.monitor.start()
        found.posts.clear()

        def meanwhile() -> None:
            found.host.run("ip", "route", "delete", "10.70.0.0/16", "dev", "up1")
            found.host.run("ip", "route", "add", "10.80.0.0/16", "dev", "up1")
            found.host.run("ip", "address", "add", "192.0.2.7/32", "dev", "up1")

        found.reader.meanwhile = meanwhile
        cause(found)
        await found.until(lambda: any(event.address.address == "192.0.2.7" for event in found.of(AddressSeen)))
        await found.until(lambda: "10.80.0.0/16" in found.routes())
        assert "10.70.0.0/16" not in found.routes()
        assert found.reader.meanwhile is None


async def test_settings_that_change_what_is_a_workloads_have_the_routes_read_after_the_reading_under_way(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    with watched() as found:
        await found.monitor.start()
        found.posts.clear()
        found.reader.meanwhile = lambda: found.monitor.follow(FelixSettings(interface_prefixes=("up",)))
        flap(found)
        await found.until(lambda: len(found.of(ForeignRoutesRead)) == 2)
        dumps = found.reader.dumps
        found.host.run("ip", "link", "set", "up0", "up")
        await found.until(lambda: any(event.link.up for event in found.of(LinkSeen)))
        assert found.reader.dumps == dumps, "the link is a workload's by now"
