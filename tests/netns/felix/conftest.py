"""A whole Felix in a network namespace: the engine as the agent puts it together, with pods plugged in as CNI does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from calipy.agent.joints import WorkloadLinks
from calipy.cni import wiring
from calipy.cni.wiring import Wiring
from calipy.felix.calc.world import ResourceGone, ResourcePut
from calipy.felix.engine import Engine
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.netlink import rtnetlink as rt
from calipy.netlink.socket import ROUTE, NetlinkSocket, inside
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.metadata import Key, ObjectMeta, Resource


class Pod:
    """A pod on a node: its namespace, its endpoint, the host's end of its link."""

    def __init__(self, namespace: Any, endpoint: WorkloadEndpoint, index: int) -> None:
        self.namespace = namespace
        self.endpoint = endpoint
        self.index = index


class FelixNode:
    """An engine at work in a namespace."""

    def __init__(self, name: str, host: Any, make: Callable[[str], Any], thread: ThreadPoolExecutor) -> None:
        self.name = name
        self.host = host
        self._make = make
        self._thread = thread
        self._cni = NetlinkSocket.open(ROUTE, namespace=host.fd)
        self.engine = Engine(name, {}, thread, namespace=host.fd)
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

    def start(self, group: asyncio.TaskGroup) -> None:
        """Everything, as the agent does once it is in sync."""
        engine = self.engine
        engine.nftables.open()
        engine.monitor.start()
        self._tasks = [group.create_task(engine.calculator.run()), group.create_task(engine.dataplane.run())]

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
        events = [
            ResourcePut(Key(type(value).__name__, value.metadata.name, value.metadata.namespace), value, 1)
            for value in values
        ]
        await self.engine.calculator.post(events)
        await self.settled()

    async def gone(self, kind: str, name: str) -> None:
        """A value leaves the store."""
        await self.engine.calculator.post([ResourceGone(Key(kind, name), 2)])
        await self.settled()

    async def configure(self, **spec: object) -> None:
        """FelixConfiguration `default` becomes this."""
        await self.put(FelixConfiguration(metadata=ObjectMeta(name="default"), spec=spec))

    async def settled(self) -> None:
        """What the kernel said until now, and what was asked for, is dealt with."""
        for _ in range(3):
            await asyncio.sleep(0)
            await self.engine.calculator.post([])
            await asyncio.wait_for(self.engine.dataplane.idle(), 10)

    async def add(self, name: str, *addresses: str) -> Pod:
        """ADD, in CNI's order: rules, link, route."""
        endpoint = WorkloadEndpoint(
            id=EndpointId("k8s", f"default/{name}", "eth0"), container_id=f"c-{name}", interface=f"cali{name}",
            addresses=addresses, namespace="default", pod=name,
        )  # fmt: skip
        await asyncio.wait_for(self.engine.endpoints.add(endpoint), 10)
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
        await asyncio.wait_for(self.engine.endpoints.routed(endpoint), 10)
        self.pods[name] = pod
        return pod

    async def delete(self, name: str) -> None:
        """DEL, in CNI's order: rules and routes, then the link."""
        pod = self.pods.pop(name)
        await asyncio.wait_for(self.engine.endpoints.remove(pod.endpoint.id, pod.endpoint.container_id), 10)
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(self._thread, self._cni.request, [rt.delete_link(pod.index)]) == ()

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

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """By driver: reads and writes."""
        return {area.driver.name: (area.reads, area.writes) for area in self.engine.areas}

    def _ask(self, messages: Any) -> None:
        assert self._cni.request(list(messages)) == ()


def _write(settings: Any) -> None:
    for setting in settings:
        with open(f"/proc/sys/net/{setting.path}", "w") as file:
            file.write(setting.value)


@pytest.fixture
async def felix(namespaces: Callable[[str], Any]) -> AsyncIterator[Callable[..., Any]]:
    """A factory: `await felix("n1")` is a node whose first apply is done; `host=` takes a namespace that is there."""
    nodes: list[FelixNode] = []
    with ThreadPoolExecutor(1, "kernel") as thread:
        async with asyncio.TaskGroup() as group:

            async def make(name: str, host: Any = None) -> FelixNode:
                node = FelixNode(name, host or namespaces(name), namespaces, thread)
                nodes.append(node)
                node.start(group)
                await asyncio.wait_for(node.engine.dataplane.first_apply.wait(), 10)
                await node.settled()
                return node

            yield make
            for node in nodes:
                node.stop()
