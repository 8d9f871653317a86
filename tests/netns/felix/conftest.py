"""A whole Felix in a network namespace: the engine as the agent puts it together, with pods plugged in as CNI does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from calipy.agent.joints import WorkloadLinks
from calipy.cni import wiring
from calipy.cni.wiring import Wiring
from calipy.conversion.nodes import vxlan_mac
from calipy.felix.calc.world import ResourceGone, ResourcePut
from calipy.felix.drivers.conntrack import Conntrack
from calipy.felix.drivers.offloads import Offloads
from calipy.felix.engine import Engine
from calipy.felix.objects import Owner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.netlink import rtnetlink as rt
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket, inside
from calipy.resources import nodes
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Key, ObjectMeta, Resource
from calipy.resources.nodes import Node
from tests.netns.felix.packets import Post


class Pod:
    """A pod on a node: its namespace, its endpoint, the host's end of its link."""

    def __init__(self, namespace: Any, endpoint: WorkloadEndpoint, index: int) -> None:
        self.namespace = namespace
        self.endpoint = endpoint
        self.index = index


class FelixNode:
    """An engine at work in a namespace."""

    def __init__(
        self, name: str, host: Any, make: Callable[[str], Any], thread: ThreadPoolExecutor, own_table: bool
    ) -> None:
        self.name = name
        self.host = host
        self._make = make
        self._thread = thread
        self._cni = NetlinkSocket.open(ROUTE, namespace=host.fd)
        self.engine = Engine(name, {}, thread, namespace=host.fd, own_table=own_table)
        self.pods: dict[str, Pod] = {}
        self.stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self.repaired: Counter[str] = Counter()
        self.engine.dataplane.on_repair = self._note
        self.links = WorkloadLinks(
            self.engine.endpoints, self.engine.monitor.links, self.engine.monitor.addresses_of, self._note, host.fd
        )
        self.engine.on_shaken = self.links.shaken

    def _note(self, driver: str, reason: str) -> None:
        self.repaired[driver] += 1

    async def start(self, group: asyncio.TaskGroup, endpoints: Sequence[WorkloadEndpoint] = ()) -> None:
        """Everything, as the agent does once it is in sync."""
        engine = self.engine
        await engine.guard()
        await engine.monitor.start()
        engine.endpoints.restore(list(endpoints))
        self._tasks = [group.create_task(engine.calculator.run()), group.create_task(engine.dataplane.run())]

    def successor(self) -> Engine:
        """The next agent's engine, not yet at work; the test closes it."""
        return Engine(self.name, {}, self._thread, namespace=self.host.fd)

    def stop(self) -> None:
        """As a killed agent: the kernel's state stays."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        if self.stopped:
            return
        self.stopped = True
        self.links.close()
        self.engine.close()
        self._cni.close()

    async def put(self, *values: Resource) -> None:
        """New values from the store; returns when the kernel has what follows from them."""
        await self.post(values)
        await self.settled()

    def post(self, values: Sequence[Resource]) -> asyncio.Future[int]:
        """The same without waiting."""
        keys = [Key(type(value).__name__, value.metadata.name, value.metadata.namespace) for value in values]
        return self.engine.calculator.post([ResourcePut(k, value, 1) for k, value in zip(keys, values, strict=True)])

    async def gone(self, kind: str, name: str) -> None:
        """A value leaves the store."""
        await self.engine.calculator.post([ResourceGone(Key(kind, name), 2)])
        await self.settled()

    async def configure(self, **spec: object) -> None:
        """FelixConfiguration `default` becomes this."""
        await self.put(self.settings_object(**spec))

    @staticmethod
    def settings_object(**spec: object) -> FelixConfiguration:
        """FelixConfiguration `default`."""
        return FelixConfiguration(metadata=ObjectMeta(name="default"), spec=spec)

    async def settled(self) -> None:
        """What the kernel said until now, and what was asked for, is dealt with."""
        for _ in range(3):
            await asyncio.sleep(0)
            await self.engine.calculator.post([])
            await asyncio.wait_for(self.engine.dataplane.idle(), 10)

    @staticmethod
    def endpoint(name: str, *addresses: str, **fields: Any) -> WorkloadEndpoint:
        """The endpoint of a pod default/<name> with the label app=<name>."""
        return WorkloadEndpoint(
            id=EndpointId("k8s", f"default/{name}", "eth0"), container_id=f"c-{name}", interface=f"cali{name}",
            addresses=addresses, namespace="default", pod=name, labels={"app": name}, **fields,
        )  # fmt: skip

    async def add(self, name: str, *addresses: str, **fields: Any) -> Pod:
        """ADD, in CNI's order: rules, link, route."""
        endpoint = self.endpoint(name, *addresses, **fields)
        await asyncio.wait_for(self.engine.endpoints.add(endpoint), 10)
        pod = self.plug(endpoint)
        await asyncio.wait_for(self.engine.endpoints.routed(endpoint), 10)
        self.pods[name] = pod
        return pod

    def plug(self, endpoint: WorkloadEndpoint) -> Pod:
        """CNI's part alone: the pod's namespace and link."""
        name, addresses = endpoint.pod, endpoint.addresses
        pod = Pod(self._make(name), endpoint, 0)
        plan = Wiring(
            interface=endpoint.interface, pod_interface="eth0", container_id=endpoint.container_id, mtu=1400,
            addresses=addresses,
        )  # fmt: skip
        self._ask([wiring.create(plan, pod.namespace.fd)])
        pod.index = rt.parse_link(self._cni.get(rt.get_link(endpoint.interface))).index
        self._ask(wiring.host_settings(plan, pod.index))
        with inside(self.host.fd):
            _write(wiring.host_sysctls(plan))
        self._ask(wiring.host_rise(plan, pod.index))
        with NetlinkSocket.open(ROUTE, namespace=pod.namespace.fd) as inner:
            index = rt.parse_link(inner.get(rt.get_link("eth0"))).index
            assert inner.request(list(wiring.pod_settings(plan, index))) == ()
        return pod

    async def delete(self, name: str) -> None:
        """DEL, in CNI's order: rules and routes, then the link."""
        pod = self.pods.pop(name)
        await asyncio.wait_for(self.engine.endpoints.remove(pod.endpoint.id, pod.endpoint.container_id), 10)
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(self._thread, self._cni.request, [rt.delete_link(pod.index)]) == ()

    def forget(self, addresses: Iterable[str]) -> None:
        """Flows of these addresses: what they send next is new again."""
        with NetlinkSocket.open(NETFILTER, namespace=self.host.fd) as netfilter, inside(self.host.fd):
            Conntrack(netfilter).flush(addresses)

    async def until(self, condition: Callable[[], object], seconds: float = 5) -> None:
        """Returns when something is so and what follows from it is done; fails if it isn't in time."""
        for _ in range(int(seconds / 0.01)):
            if condition():
                return await self.settled()
            await asyncio.sleep(0.01)
        raise AssertionError(f"not so after {seconds} s")

    @property
    def repairs(self) -> dict[str, int]:
        """Foreign changes repaired, by driver."""
        return {driver: count for driver, count in self.repaired.items() if count}

    @property
    def mac(self) -> str:
        """Its tunnel device's MAC."""
        return vxlan_mac(self.name, 4)

    def offloads(self) -> Offloads:
        """Its links' checksum offloads; the test closes it."""
        return Offloads(self.host.fd)

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """By driver: reads and writes."""
        return {area.driver.name: (area.reads, area.writes) for area in self.engine.areas}

    def _ask(self, messages: Any) -> None:
        assert self._cni.request(list(messages)) == ()


def _write(settings: Any) -> None:
    for setting in settings:
        with open(f"/proc/sys/net/{setting.path}", "w") as file:
            file.write(setting.value)


class Ear:
    """A UDP socket in a namespace that hears, and answers."""

    def __init__(self, namespace: Any, address: str, port: int = 0) -> None:
        self.socket = datagrams(namespace, address, port)
        self.address, self.port = self.socket.getsockname()[:2]

    def hears(self, word: bytes, within_s: float = 2.0) -> tuple[str, int] | None:
        """Who sent the word; None if it doesn't come."""
        self.socket.settimeout(within_s)
        try:
            while True:
                heard, sender = self.socket.recvfrom(65536)
                if heard == word:
                    return sender[:2]
        except TimeoutError:
            return None


def datagrams(namespace: Any, address: str, port: int = 0) -> socket.socket:
    """A UDP socket bound in a namespace."""
    with inside(namespace.fd):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


class Wire:
    """Packets between namespaces, with every socket closed in the end."""

    inside = staticmethod(inside)
    TRIES, AGAIN_S = 10, 0.5
    NEVER_S = 0.15
    """How long nothing must come where a packet is to be dropped: the way is warm by then."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self._word = 0

    def ear(self, namespace: Any, address: str, port: int = 0) -> Ear:
        """A listener."""
        ear = Ear(namespace, address, port)
        self._open.append(ear.socket)
        return ear

    def mouth(self, namespace: Any, address: str, port: int = 0) -> socket.socket:
        """A sender."""
        self._open.append(datagrams(namespace, address, port))
        return self._open[-1]

    def raw(self, namespace: Any, protocol: int, family: int = socket.AF_INET) -> socket.socket:
        """A raw socket."""
        with inside(namespace.fd):
            self._open.append(socket.socket(family, socket.SOCK_RAW, protocol))
        return self._open[-1]

    def word(self) -> bytes:
        """A payload never sent before."""
        self._word += 1
        return b"word %d" % self._word

    def passes(self, mouth: socket.socket, ear: Ear) -> tuple[str, int] | None:
        """Sends a word: as whom the ear heard it. Where neighbours are still being found a first datagram may be lost,
        as it may on any network: it is said again a few times."""
        for _ in range(self.TRIES):
            word = self.word()
            mouth.sendto(word, (ear.address, ear.port))
            heard = ear.hears(word, self.AGAIN_S)
            if heard is not None:
                return heard
        return None

    def dropped(self, mouth: socket.socket, ear: Ear) -> bool:
        """Sends a word that must not arrive."""
        word = self.word()
        with contextlib.suppress(OSError):  # rejected
            mouth.sendto(word, (ear.address, ear.port))
        return ear.hears(word, self.NEVER_S) is None

    def close(self) -> None:
        for opened in self._open:
            opened.close()


@pytest.fixture
def post() -> Iterator[Post]:
    """Packets of every protocol."""
    made = Post()
    yield made
    made.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Real packets."""
    made = Wire()
    yield made
    made.close()


def uplink(host: Any, other: Any, host_link: str, *addresses: tuple[str, str]) -> None:
    """A link between two namespaces, `eth0` at the other end; addresses with prefix length, ours and theirs."""
    host.run("ip", "link", "add", host_link, "type", "veth", "peer", "name", "eth0", "netns", other.name)
    for namespace, link, own in ((host, host_link, 0), (other, "eth0", 1)):
        namespace.run("sysctl", "-qw", f"net.ipv6.conf.{link}.accept_dad=0")
        for pair in addresses:
            namespace.run("ip", "addr", "add", pair[own], "dev", link, *(["nodad"] if ":" in pair[own] else []))
        namespace.run("ip", "link", "set", link, "up")


class World:
    """Objects as the store would hold them."""

    uplink = staticmethod(uplink)

    @staticmethod
    def node(name: str, ip: str, ip6: str = "", tunnel: str = "", tunnel6: str = "", **labels: str) -> Node:
        """A Node as its agent annotates it; addresses with prefix length, tunnel addresses without."""
        notes = {
            nodes.IPV4_ADDRESS: ip,
            nodes.IPV6_ADDRESS: ip6,
            nodes.VXLAN_ADDRESS: tunnel,
            nodes.VXLAN_V6_ADDRESS: tunnel6,
            nodes.VXLAN_MAC: vxlan_mac(name, 4) if tunnel else "",
            nodes.VXLAN_V6_MAC: vxlan_mac(name, 6) if tunnel6 else "",
        }
        annotations = {key: value for key, value in notes.items() if value}
        return Node(metadata=ObjectMeta(name=name, annotations=annotations, labels=labels))

    @staticmethod
    def pool(name: str, cidr: str, **spec: Any) -> IPPool:
        """A pool."""
        return IPPool(metadata=ObjectMeta(name=name), spec=IPPoolSpec(cidr=cidr, **spec))

    @staticmethod
    def block(node: str, cidr: str) -> BlockAffinity:
        """A confirmed block."""
        name = f"{node}-{cidr}".translate(str.maketrans("./:", "---"))
        spec = BlockAffinitySpec(cidr=cidr, node=node, state="confirmed")
        return BlockAffinity(metadata=ObjectMeta(name=name), spec=spec)


@pytest.fixture
def world() -> World:
    """Makers of the store's objects."""
    return World()


@pytest.fixture
async def felix(namespaces: Callable[[str], Any]) -> AsyncIterator[Callable[..., Any]]:
    """A factory: `await felix("n1")` is a node whose first apply is done; `host=` takes a namespace that is there."""
    made: list[FelixNode] = []
    with ThreadPoolExecutor(1, "kernel") as thread:
        async with asyncio.TaskGroup() as group:

            async def make(
                name: str,
                host: Any = None,
                values: Sequence[Resource] = (),
                own_table: bool = True,
                endpoints: Sequence[WorkloadEndpoint] = (),
                held: Owner | None = None,
            ) -> FelixNode:
                node = FelixNode(name, host or namespaces(name), namespaces, thread, own_table)
                made.append(node)
                node.post(values)
                if held is not None:
                    node.engine.dataplane.hold(held, "the test says when")
                await node.start(group, endpoints)
                await asyncio.wait_for(node.engine.dataplane.first_apply.wait(), 10)
                await node.settled()
                return node

            yield make
            for node in made:
                node.stop()
