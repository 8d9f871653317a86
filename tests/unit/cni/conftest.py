"""A small world for the verbs: store, allocator, dataplane and kernel that keep their promises, and break at will."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec import structs

from calipy.cni import wiring as plans
from calipy.cni.additions import Additions
from calipy.cni.attachments import Attachments
from calipy.cni.differences import Observed
from calipy.cni.errors import CniError, Code
from calipy.cni.needs import Demand, Drawn, NodeFacts
from calipy.cni.pods import Found, Mark
from calipy.cni.protocol import PodReference, Request, parse
from calipy.cni.removals import Removals
from calipy.cni.sites import Site
from calipy.cni.wires import Connected
from calipy.cni.wiring import Wiring
from calipy.datastore.stores import Unavailable
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.netlink.rtnetlink import Link
from calipy.resources.metadata import ObjectMeta
from calipy.resources.pods import Container, ContainerPort, Pod, PodSpec

BLOCK = ipaddress.ip_network("10.0.0.0/29")
BLOCK6 = ipaddress.ip_network("fd00::/125")


class Killed(BaseException):
    """The agent is dead: nothing that it would do has an effect any more."""


class World:
    """All that outlives an agent, and the steps that it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thread = ThreadPoolExecutor(1)
        self.steps: list[str] = []
        self.breaks: dict[str, BaseException] = {}
        """Step -> what is raised before it has an effect; `<step>!` after it."""
        self.pauses: dict[str, asyncio.Event] = {}
        self.paused: asyncio.Queue[str] = asyncio.Queue()
        self.store_away = False
        self.dead = False
        self.allocations: dict[str, tuple[str, ...]] = {}
        self.unclean: set[str] = set()
        """Addresses that old flows may still lead to."""
        self.endpoints: dict[EndpointId, WorkloadEndpoint] = {}
        self.routes: dict[str, str] = {}
        self.links: dict[str, Link] = {}
        self.made: dict[str, Wiring] = {}
        self.pods: dict[str, Mark] = {}
        self.annotations: dict[str, str] = {}
        self.refusals: dict[EndpointId, str] = {}
        self.next_index = 10
        self.obstacle = ""
        self.no_pods = False
        self.start()

    def start(self) -> None:
        """A new agent."""
        self.dead = False
        node = NodeFacts(
            name="n1",
            interface_prefix="cali",
            mtu=lambda: 1450,
            families=lambda: (4, 6),
            obstacle=lambda: self.obstacle,
        )
        self.attachments = Attachments(self.folder, self.thread)
        self.site = Site(
            node=node,
            addresses=Addresses(self),
            endpoints=Endpoints(self),
            pods=Pods(self),
            flows=Flows(self),
            kernel=Kernel(self),
            attachments=self.attachments,
        )
        self.removals = Removals(self.site)
        self.additions = Additions(self.site, self.removals)

    def close(self) -> None:
        """The end."""
        self.thread.shutdown()

    async def step(self, name: str, *, store: bool = False) -> None:
        """Before a step's effect."""
        self.sync_step(name)
        if name in self.pauses:
            self.paused.put_nowait(name)
            await self.pauses[name].wait()
        await asyncio.sleep(0)
        if store and self.store_away:
            raise Unavailable("the store is away")

    def sync_step(self, name: str) -> None:
        """Before the effect of a step in which nothing is awaited."""
        if self.dead:
            raise Killed
        self.steps.append(name)
        self._break(name)

    async def after(self, name: str) -> None:
        """After a step's effect."""
        self._break(f"{name}!")
        await asyncio.sleep(0)

    def _break(self, name: str) -> None:
        if name in self.breaks:
            problem = self.breaks.pop(name)
            self.dead = self.dead or isinstance(problem, Killed)
            raise problem

    def left(self) -> dict[str, object]:
        """All that is left of anything; empty values are left out."""
        everything = {
            "allocations": self.allocations,
            "endpoints": self.endpoints,
            "routes": self.routes,
            "links": self.links,
            "pods": self.pods,
            "records": [entry.key for entry in self.attachments],
            "files": [path.name for path in self.folder.iterdir()],
            "in flight": self.site.adding,
            "turns": len(self.site.turns),
            "unclean": self.unclean,
        }
        return {name: value for name, value in everything.items() if value}

    @staticmethod
    def request(
        verb: str, container: str = "c1", pod: str = "shop/web", conf: Mapping[str, object] | None = None, **env: str
    ) -> Request:
        """A request as a runtime makes it."""
        namespace, _, name = pod.partition("/")
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}" if pod else "",
            **env,
        }
        document = {"cniVersion": "1.1.0", "name": "net", "prevResult": {} if verb == "CHECK" else None, **(conf or {})}
        return parse(environment, json.dumps(document))

    async def add(self, container: str = "c1", pod: str = "shop/web", **more: object) -> object:
        """ADD."""
        return await self.additions.add(self.request("ADD", container, pod, **more), 5)  # type: ignore[arg-type]

    async def delete(self, container: str = "c1", pod: str = "shop/web", **more: object) -> None:
        """DEL."""
        await self.removals.delete(self.request("DEL", container, pod, **more))  # type: ignore[arg-type]

    async def collect(self, *valid: str, dry_run: bool = False) -> tuple[str, ...]:
        """GC with these valid containers: the IDs of those taken back."""
        entries = [{"containerID": container, "ifname": "eth0"} for container in valid]
        request = self.request("GC", conf={"cni.dev/valid-attachments": entries})
        return tuple(entry.container_id for entry in await self.removals.collect(request, dry_run=dry_run))


class Part:
    """A part of the world."""

    def __init__(self, world: World) -> None:
        self.world = world


class Addresses(Part):
    async def draw(self, demand: Demand) -> tuple[Drawn, ...]:
        await self.world.step("draw", store=True)
        taken = {address for held in self.world.allocations.values() for address in held}
        drawn = []
        for block in (BLOCK, BLOCK6):
            if block.version in demand.families and not demand.addresses:
                free = [str(address) for address in block if str(address) not in taken]
                if not free:
                    raise CniError(Code.NO_ADDRESS, "every block is full", "make a pool")
                drawn.append(Drawn(free[0], str(block)))
        drawn += [Drawn(address, str(BLOCK)) for address in demand.addresses]
        assert demand.handle not in self.world.allocations, "a handle draws once"
        self.world.allocations[demand.handle] = tuple(entry.address for entry in drawn)
        await self.world.after("draw")
        return tuple(drawn)

    async def release(self, handle: str) -> None:
        await self.world.step("release", store=True)
        held = self.world.allocations.pop(handle, ())
        assert not self.world.unclean & set(held), "flows are flushed before an address is released"
        assert not any(set(held) & set(link.addresses) for link in self.world.made.values())
        assert not set(held) & set(self.world.routes)
        await self.world.after("release")

    async def addresses_of(self, handle: str) -> tuple[str, ...]:
        await self.world.step("addresses of", store=True)
        return self.world.allocations.get(handle, ())


class Endpoints(Part):
    async def add(self, endpoint: WorkloadEndpoint) -> None:
        await self.world.step("endpoint")
        former = self.world.endpoints.get(endpoint.id)
        for address in former.addresses if former else ():
            self.world.routes.pop(address, None)
        self.world.endpoints[endpoint.id] = endpoint
        await self.world.after("endpoint")

    async def routed(self, endpoint: WorkloadEndpoint) -> None:
        await self.world.step("route")
        assert self.world.links[endpoint.interface].alias == endpoint.container_id
        assert not self.world.unclean & set(endpoint.addresses), "old flows are flushed before the route is there"
        assert endpoint.mac
        self.world.endpoints[endpoint.id] = endpoint
        for address in endpoint.addresses:
            self.world.routes[address] = endpoint.interface
            self.world.unclean.add(address)
        await self.world.after("route")

    async def remove(self, endpoint: EndpointId, container_id: str) -> None:
        await self.world.step("endpoint out")
        current = self.world.endpoints.get(endpoint)
        if current is not None and current.container_id == container_id:
            del self.world.endpoints[endpoint]
            for address in current.addresses:
                self.world.routes.pop(address, None)

    def current(self, endpoint: EndpointId) -> WorkloadEndpoint | None:
        return self.world.endpoints.get(endpoint)

    def refusal(self, endpoint: EndpointId) -> str:
        return self.world.refusals.get(endpoint, "")


class Pods(Part):
    async def find(self, reference: PodReference) -> Found | None:
        await self.world.step("pod", store=True)
        if self.world.no_pods:
            return None
        meta = ObjectMeta(
            name=reference.name,
            namespace=reference.namespace,
            annotations=self.world.annotations,
            labels={"app": "web"},
        )
        ports = (ContainerPort(container_port=80, name="http"),)
        spec = PodSpec(service_account_name="robot", containers=(Container(ports=ports),))
        return Found(pod=Pod(metadata=meta, spec=spec), namespace_labels={"team": "a"})

    async def mark(self, reference: PodReference, mark: Mark, annotations: Mapping[str, str]) -> bool:
        await self.world.step("mark", store=True)
        if self.world.no_pods:
            return False
        self.world.pods[str(reference)] = mark
        await self.world.after("mark")
        return True

    async def blank(self, reference: PodReference, container_id: str) -> None:
        await self.world.step("blank", store=True)
        if str(reference) in self.world.pods and self.world.pods[str(reference)].container_id == container_id:
            del self.world.pods[str(reference)]


class Flows(Part):
    async def flush(self, addresses: Sequence[str]) -> None:
        await self.world.step("flush")
        self.world.unclean -= set(addresses)


class Kernel(Part):
    def judge(self, namespace: int | None, name: str) -> int:
        if namespace is None:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS {name}", "")
        return namespace

    def find(self, name: str) -> Link | None:
        return self.world.links.get(name)

    async def connect(self, wiring: Wiring, namespace: int) -> Connected:
        await self.world.step("link")
        assert wiring.interface not in self.world.links
        index = self.world.next_index = self.world.next_index + 1
        mac = wiring.pod_mac or "02:00:00:00:00:01"
        self.world.links[wiring.interface] = Link(index=index, name=wiring.interface, alias=wiring.container_id)
        self.world.made[wiring.interface] = structs.replace(wiring, pod_mac=mac)
        await self.world.after("link")
        return Connected(index, mac)

    def observe(self, wiring: Wiring, namespace: int) -> Observed:
        link = self.world.links.get(wiring.interface)
        if link is None:
            return Observed()
        made = self.world.made[wiring.interface]
        host = structs.replace(link, mac=plans.HOST_MAC, mtu=made.mtu, flags=1)
        return Observed(
            host=host,
            pod=Link(index=2, name=made.pod_interface, mac=made.pod_mac, mtu=made.mtu, flags=1),
            addresses=tuple(f"{address}/{plans.WIDTH[plans.family_of(address)]}" for address in made.addresses),
            routes=plans.pod_routes(made),
            neighbours={plans.GATEWAYS[family]: (plans.HOST_MAC, 0x80) for family in made.families},
            sysctls={entry.path: entry.value for entry in (*plans.host_checks(made), *plans.pod_sysctls(made))},
            host_routes={
                address: (f"{address}/{plans.WIDTH[plans.family_of(address)]}", link.index)
                for address in made.addresses
                if self.world.routes.get(address) == wiring.interface
            },
        )

    async def remove(self, index: int) -> None:
        await self.world.step("link out")
        for name, link in tuple(self.world.links.items()):
            if link.index == index:
                del self.world.links[name]
                del self.world.made[name]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[[], World]]:
    """Makes worlds, each with its own folder."""
    worlds: list[World] = []

    def make() -> World:
        worlds.append(World(tmp_path / f"world{len(worlds)}"))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    """A world."""
    return make_world()


@pytest.fixture
def killed() -> Killed:
    """What a step raises for the agent to be dead from there on."""
    return Killed()
