"""policyRecheck with real connections: what a change forbids is cut within a second, what it allows isn't disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from calipy.agent.flow_judge import recheck
from calipy.netlink.socket import inside
from tests.unit.felix.calc.worlds import pod
from tests.unit.resources.objects import made

A, B, WEB = ({4: f"10.244.0.{n}", 6: f"fd00:10::{n}"} for n in (1, 2, 3))
OUT, SERVICE = {4: "10.9.0.9", 6: "fd00:9::9"}, {4: "10.96.0.1", 6: "fd00:96::1"}
PORT = 8080
_EVERY_S = 0.005
_TOTAL_RETRANSMITS = 100
"""Where struct tcp_info (linux/tcp.h) has tcpi_total_retrans."""


class Talk:
    """A connection by which one side says a number every few milliseconds, and the other hears it and says it back:
    a flow without answers isn't established."""

    def __init__(self, protocol: str, family: int, source: Any, target: Any, address: str, real: str = "") -> None:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        self.address, self.protocol = address, protocol
        self.said, self.first = 0, 0
        self.heard: dict[int, float] = {}
        family_ = socket.AF_INET6 if family == 6 else socket.AF_INET
        with inside(source.fd):
            self._mouth = socket.socket(family_, kind)
        with inside(target.fd):
            self._ear = socket.socket(family_, kind)
        for each in (self._mouth, self._ear):
            each.setblocking(False)
        self._ear.bind((real or address, 0))
        self._port = self._ear.getsockname()[1]
        self._accepted: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Returns when it is established, and the way is warm."""
        loop = asyncio.get_running_loop()
        if self.protocol == "tcp":
            self._ear.listen()
            accepting = group.create_task(loop.sock_accept(self._ear))
            await asyncio.wait_for(loop.sock_connect(self._mouth, (self.address, self._port)), 5)
            self._accepted, _ = await asyncio.wait_for(accepting, 5)
            self._accepted.setblocking(False)
        else:
            self._mouth.connect((self.address, self._port))
        self._tasks = [group.create_task(work()) for work in (self._speak, self._hear, self._listen)]
        async with asyncio.timeout(5):
            while len(self.heard) < 5:  # noqa: ASYNC110  what arrives is another task's affair
                await asyncio.sleep(0.01)
        self.first = self.said

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._speaking.wait()
            self.said += 1
            word = struct.pack(">I", self.said)
            if self.protocol == "tcp":
                await loop.sock_sendall(self._mouth, word)
            else:
                with contextlib.suppress(ConnectionRefusedError, PermissionError):
                    self._mouth.send(word)
            await asyncio.sleep(_EVERY_S)

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        held = b""
        while True:
            if self._accepted is not None:
                said = await loop.sock_recv(self._accepted, 4096)
                await loop.sock_sendall(self._accepted, said)
            else:
                said, speaker = await loop.sock_recvfrom(self._ear, 4096)
                with contextlib.suppress(PermissionError):  # what is forbidden by now is not answered
                    await loop.sock_sendto(self._ear, said, speaker)
            held += said
            while len(held) >= 4:
                self.heard[struct.unpack(">I", held[:4])[0]] = time.monotonic()
                held = held[4:]

    async def _listen(self) -> None:
        while True:
            await asyncio.get_running_loop().sock_recv(self._mouth, 4096)

    @property
    def last_s(self) -> float:
        """When something was heard last."""
        return max(self.heard.values())

    @property
    def alive(self) -> bool:
        return time.monotonic() - self.last_s < 0.3

    @property
    def undisturbed(self) -> bool:
        """All that was said since the start has been heard, at the first try."""
        info = (
            self._mouth.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104) if self.protocol == "tcp" else bytes(104)
        )
        (again,) = struct.unpack_from("=I", info, _TOTAL_RETRANSMITS)
        return again == 0 and self.heard.keys() >= set(range(self.first, self.said + 1))

    def silence(self) -> None:
        """Nothing more is said."""
        self._speaking.clear()

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for each in (self._mouth, self._ear, self._accepted):
            if each is not None:
                each.close()


class Talks:
    """Connections on a node whose policyRecheck is at work."""

    def __init__(self, node: Any, cutting: Any, group: asyncio.TaskGroup, outside: Any) -> None:
        self.node, self.cutting, self.group, self.outside = node, cutting, group, outside
        self.open: list[Talk] = []

    def where(self, name: str) -> Any:
        others = {"out": self.outside, "host": self.node.host}
        return others[name] if name in others else self.node.pods[name].namespace

    async def start(self, protocol: str, family: int, source: str, target: str, address: str, real: str = "") -> Talk:
        talk = Talk(protocol, family, self.where(source), self.where(target), address, real)
        self.open.append(talk)
        await talk.start(self.group)
        return talk

    async def both(self, family: int, source: str, target: str, address: str, real: str = "") -> list[Talk]:
        return [await self.start(protocol, family, source, target, address, real) for protocol in ("tcp", "udp")]

    async def changed(self, *values: Any) -> float:
        """When the kernel had what follows from these."""
        await self.node.put(*values)
        return time.monotonic()

    async def quiet(self) -> None:
        """What is under way arrives."""
        for talk in self.open:
            talk.silence()
        await asyncio.sleep(0.3)


@pytest.fixture
async def talks(felix: Any, world: Any, namespaces: Any) -> AsyncIterator[Talks]:
    """Pods a, b and web, something outside behind outgoing NAT, and a service that leads to web."""
    host, outside = namespaces("n1"), namespaces("out")
    world.uplink(host, outside, "up0", ("10.9.0.1/24", "10.9.0.9/24"), ("fd00:9::1/64", "fd00:9::9/64"))
    for gateway in ("10.9.0.1", "fd00:9::1"):
        outside.run("ip", "route", "add", "default", "via", gateway)
    services = " ".join(
        f"{word} daddr {SERVICE[family]} dnat {word} to {WEB[family]};" for family, word in ((4, "ip"), (6, "ip6"))
    )
    chain = "type nat hook prerouting priority dstnat;"
    host.run("nft", f"table inet services {{ chain prerouting {{ {chain} {services} }}; }};")
    pools = [
        world.pool("four", "10.244.0.0/16", nat_outgoing=True),
        world.pool("six", "fd00:10::/64", nat_outgoing=True),
    ]
    node = await felix("n1", host, [world.node("n1", "10.9.0.1/24", "fd00:9::1/64"), *pools])
    for name, addresses in (("a", A), ("b", B), ("web", WEB)):
        await node.add(name, addresses[4], addresses[6])
    cutting = recheck(node.engine, node._thread, namespace=host.fd)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(cutting.run())
        made_ = Talks(node, cutting, group, outside)
        yield made_
        running.cancel()
        for talk in made_.open:
            talk.end()
    cutting.close()


def policy(name: str, selector: str, direction: str, *rules: dict[str, Any]) -> Any:
    spec = {"selector": selector, "types": [direction.capitalize()], direction: list(rules)}
    return made(kind("GlobalNetworkPolicy"), spec, name)


def kind(name: str) -> Any:
    from calipy.resources import kinds

    return kinds.BY_NAME[name]


def only_b() -> Any:
    return policy("web", "app == 'web'", "ingress", {"action": "Allow", "source": {"selector": "app == 'b'"}})


@pytest.mark.parametrize("family", [4, 6])
async def test_what_is_forbidden_is_cut_and_nobody_else_is_disturbed(talks: Talks, family: int) -> None:
    talks.cutting.follow("Enabled")
    forbidden = [
        *await talks.both(family, "a", "web", WEB[family]),
        *await talks.both(family, "a", "web", SERVICE[family], WEB[family]),
        *await talks.both(family, "b", "a", A[family]),
        *await talks.both(family, "out", "web", WEB[family]),
    ]
    allowed = [
        *await talks.both(family, "b", "web", WEB[family]),
        *await talks.both(family, "b", "web", SERVICE[family], WEB[family]),
        *await talks.both(family, "b", "out", OUT[family]),
        *await talks.both(family, "a", "b", B[family]),
        *await talks.both(family, "web", "a", A[family]),
    ]
    not_to_a = {"action": "Deny", "destination": {"nets": [f"{A[family]}/{32 if family == 4 else 128}"]}}
    await asyncio.sleep(1.0)
    began = time.monotonic()
    committed = await talks.changed(only_b(), policy("b", "app == 'b'", "egress", not_to_a, {"action": "Allow"}))
    await asyncio.sleep(1.2)
    for talk in forbidden:
        assert began < talk.last_s < committed + 1.0, (talk.protocol, talk.address)
        assert not talk.alive
    cut_s = max(talk.last_s for talk in forbidden) - committed
    print(f"cut {cut_s * 1000:.1f} ms after the commit was known")
    assert talks.cutting.cut == len(forbidden)
    await talks.quiet()
    for talk in allowed:
        assert talk.undisturbed, (talk.protocol, talk.address)


async def test_disabled_nothing_is_cut_and_enabled_later_everything_is_that_is_forbidden_by_then(talks: Talks) -> None:
    forbidden = await talks.both(4, "a", "web", WEB[4])
    await talks.changed(only_b())
    await asyncio.sleep(1.2)
    assert all(talk.alive for talk in forbidden)
    assert talks.cutting.passes == 0
    talks.cutting.follow("Enabled")
    await asyncio.sleep(1.0)
    assert not any(talk.alive for talk in forbidden)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_peer_that_leaves_the_set_by_its_labels_is_cut(talks: Talks, family: int) -> None:
    talks.cutting.follow("Enabled")
    addresses = (OUT[4], OUT[6])
    await talks.changed(pod("out", *addresses, namespace="default", app="b").value, only_b())
    peer = await talks.both(family, "out", "web", WEB[family])
    beside = await talks.both(family, "b", "web", WEB[family])
    relabelled = await talks.changed(pod("out", *addresses, namespace="default", app="c").value)
    await asyncio.sleep(1.2)
    for talk in peer:
        assert talk.last_s < relabelled + 1.0
    await talks.quiet()
    assert all(talk.undisturbed for talk in beside)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_setting_that_forbids_cuts_too(talks: Talks, family: int) -> None:
    await talks.node.configure(defaultEndpointToHostAction="Accept")
    talks.cutting.follow("Enabled")
    await asyncio.sleep(0.2)
    forbidden = await talks.both(family, "a", "host", {4: "10.9.0.1", 6: "fd00:9::1"}[family])
    beside = await talks.both(family, "b", "web", WEB[family])
    await asyncio.sleep(1.0)
    assert all(talk.alive for talk in forbidden)
    await talks.node.configure(defaultEndpointToHostAction="Drop")
    await asyncio.sleep(1.4)
    assert not any(talk.alive for talk in forbidden)
    await talks.quiet()
    assert all(talk.undisturbed for talk in beside)


async def test_what_is_cut_comes_back_once_it_is_allowed_again(talks: Talks) -> None:
    talks.cutting.follow("Enabled")
    (udp,) = [await talks.start("udp", 4, "a", "web", WEB[4])]
    await talks.changed(only_b())
    await asyncio.sleep(1.4)
    assert not udp.alive
    await talks.node.gone("GlobalNetworkPolicy", "web")
    await asyncio.sleep(1.1)
    assert udp.alive
    assert talks.cutting.reprieved == 1


async def test_disabled_again_the_barrier_goes_and_so_does_one_that_an_agent_before_has_left(talks: Talks) -> None:
    def barrier() -> bool:
        return "calipy-recheck" in talks.node.host.run("nft", "list", "tables")

    assert not barrier()
    for _ in range(2):
        talks.cutting.follow("Enabled")
        await asyncio.sleep(0.2)
        assert barrier()
        talks.cutting.follow("Disabled")
        await asyncio.sleep(0.2)
        assert not barrier()
    talks.cutting.follow("Enabled")
    await asyncio.sleep(0.2)
    successor = recheck(talks.node.engine, talks.node._thread, namespace=talks.node.host.fd)
    running = talks.group.create_task(successor.run())
    await asyncio.sleep(0.2)
    assert not barrier()
    running.cancel()
    successor.close()
