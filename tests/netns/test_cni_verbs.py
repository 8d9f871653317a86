"""The verbs over the agent's socket: real kernel, store and allocator; only the dataplane is a small one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from calipy.cni.attachments import Attachments
from calipy.cni.dispatch import Dispatcher
from calipy.cni.draws import AllocatedAddresses
from calipy.cni.needs import NodeFacts
from calipy.cni.pods import StoredPods
from calipy.cni.removals import Removals
from calipy.cni.server import Server
from calipy.cni.sites import Site
from calipy.cni.wires import Wires
from calipy.datastore.sqlite import SQLiteStore
from calipy.ipam.allocator import Allocator
from calipy.netlink import ctnetlink
from calipy.netlink import rtnetlink as rt
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket, inside
from calipy.resources import ip_pools, ipam_blocks, ipam_handles, pods
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.ipam_configurations import IPAMConfiguration, IPAMConfigurationSpec
from calipy.resources.metadata import ObjectMeta

POOLS = tuple(
    IPPool(metadata=ObjectMeta(name=name), spec=IPPoolSpec(cidr=cidr))
    for name, cidr in (("four", "10.123.0.0/24"), ("six", "fd00:7b::/116"))
)


class Inputs:
    """What the allocator reads; what others claim it learns from conflicts."""

    def pools(self):
        return POOLS

    def reservations(self):
        return ()

    def configuration(self):
        return IPAMConfiguration(metadata=ObjectMeta(name="default"), spec=IPAMConfigurationSpec())

    def node_labels(self):
        return {}

    def affinities(self):
        return ()


class Endpoints:
    """A dataplane that has no policy: routes only."""

    def __init__(self, kernel) -> None:
        self.kernel = kernel
        self.socket = NetlinkSocket.open(ROUTE)
        self.known = {}
        self.may = asyncio.Event()
        self.may.set()
        self.waiting = asyncio.Event()

    async def add(self, endpoint):
        self.waiting.set()
        await self.may.wait()
        self._drop(endpoint.id)
        self.known[endpoint.id] = endpoint

    async def routed(self, endpoint):
        index = self.kernel.find(endpoint.interface).index
        assert self.socket.request([rt.put_route(route) for route in _routes(endpoint, index)]) == ()

    async def remove(self, identity, container_id):
        if identity in self.known and self.known[identity].container_id == container_id:
            self._drop(identity)

    def current(self, identity):
        return self.known.get(identity)

    def refusal(self, identity):
        return ""

    def _drop(self, identity):
        endpoint = self.known.pop(identity, None)
        if endpoint is not None:
            self.socket.request([rt.delete_route(route) for route in _routes(endpoint, None)])


def _routes(endpoint, index):
    for address in endpoint.addresses:
        family = 6 if ":" in address else 4
        yield rt.Route(
            family=family, destination=f"{address}/{128 if family == 6 else 32}", device=index, protocol=80,
            metric=1024, scope=rt.SCOPE_UNIVERSE if family == 6 else rt.SCOPE_LINK,
        )  # fmt: skip


class Flows:
    """Connection tracking of the node."""

    def __init__(self) -> None:
        self.socket = NetlinkSocket.open(NETFILTER)

    async def flush(self, addresses):
        for address in addresses:
            if ":" not in address:
                self.socket.request(list(ctnetlink.delete_flows(address)))
                continue
            flows = self.socket.dump(ctnetlink.dump_flows(6))
            self.socket.request([ctnetlink.delete_flow(flow) for flow in flows if ctnetlink.mentions(flow, address)])


class Agent:
    """What an agent is to CNI, in a network namespace of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cni.sock"
        self.folder = folder / "attachments"

    @contextlib.asynccontextmanager
    async def running(self):
        with ThreadPoolExecutor(1) as thread, contextlib.ExitStack() as stack:
            self.store = await SQLiteStore.open(self.path.with_name("store.db"))
            for pool in POOLS:
                with contextlib.suppress(Exception):
                    await self.store.create(ip_pools.KIND, pool)
            self.kernel = Wires(Path("/proc/sys/net"))
            stack.callback(self.kernel.close)
            self.endpoints, flows = Endpoints(self.kernel), Flows()
            stack.callback(self.endpoints.socket.close)
            stack.callback(flows.socket.close)
            allocator = Allocator(self.store, "n1", Inputs(), time.time)
            self.attachments = Attachments(self.folder, thread)
            self.site = Site(
                node=NodeFacts(
                    name="n1", interface_prefix="cali", mtu=lambda: 1400, families=lambda: (4, 6), obstacle=lambda: ""
                ),
                addresses=AllocatedAddresses(allocator, "n1", time.time),
                endpoints=self.endpoints,
                pods=StoredPods(self.store, "n1", embedded=True),
                flows=flows,
                kernel=self.kernel,
                attachments=self.attachments,
            )
            self.removals = Removals(self.site)
            server = Server(self.path, Dispatcher(self.site, self.removals, lambda verb, code, seconds: None))
            async with asyncio.TaskGroup() as group:
                task = group.create_task(server.run())
                await until(self.path.is_socket)
                yield self
                task.cancel()
            await self.store.close()

    def dial(self, verb, container, pod=None, **conf):
        """As the forwarder does."""
        name = f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container if pod is None else pod}"
        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_ARGS": name,
            "CNI_NETNS": conf.pop("netns", "/x"),
        }  # fmt: skip
        request = json.dumps(
            {"env": env, "stdin": json.dumps({"cniVersion": "1.1.0", "name": "k8s-pod-network", **conf})}
        )
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(self.path))
        return raw, request.encode() + b"\n"

    async def ask(self, verb, container, namespace=None, **conf):
        """One request: status and document."""
        raw, request = self.dial(verb, container, **conf)
        with raw:
            socket.send_fds(raw, [request], [namespace.fd] if namespace else [])
            raw.shutdown(socket.SHUT_WR)
            raw.setblocking(False)
            data = b""
            while chunk := await asyncio.get_running_loop().sock_recv(raw, 65536):
                data += chunk
        return int(data[:1]), json.loads(data[1:] or b"null")

    async def nothing_left(self):
        """True when there is no trace of any container."""
        blocks = [item.value async for page in self.store.list(ipam_blocks.KIND) for item in page.items]
        handles = [item async for page in self.store.list(ipam_handles.KIND) for item in page.items]
        known = [item async for page in self.store.list(pods.KIND) for item in page.items]
        held = [entry for block in blocks for entry in block.spec.allocations if entry is not None]
        return not (held or handles or known or list(self.folder.iterdir()) or self.endpoints.known)


async def until(condition):
    """Turns of the loop until something is so."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(condition)


@pytest.fixture
def node(namespaces):
    made = namespaces("node")
    made.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    made.run("ip", "address", "add", "fd00:99::1/128", "dev", "lo")
    return made


@pytest.fixture
def run(node, tmp_path):
    """Runs a story with an agent in the node's namespace."""

    def runs(story):
        async def whole():
            async with Agent(tmp_path).running() as agent:
                await story(agent)

        with inside(node.fd):
            asyncio.run(whole())
        assert [line.split()[0] for line in node.run("ip", "-br", "link").splitlines()] == ["lo"]
        assert node.run("ip", "route", "show", "proto", "80") == ""

    return runs


async def pings(namespace, address):
    argv = ("ip", "netns", "exec", namespace.name, "ping", "-c1", "-W2", address)
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


def test_a_life(run, node, namespaces):
    pod = namespaces("pod")

    async def story(agent):
        status, result = await agent.ask("ADD", "c1", pod)
        assert status == 0, result
        four, six = (entry["address"].partition("/")[0] for entry in result["ips"])
        assert await pings(node, four)
        assert await pings(node, six)
        assert await pings(pod, "10.99.0.1")
        assert await pings(pod, "fd00:99::1")
        stored = (await agent.store.get(pods.KIND, "c1", "shop")).value
        assert stored.metadata.annotations[pods.POD_IPS] == f"{four}/32,{six}/128"
        assert await agent.ask("CHECK", "c1", pod, prevResult=result) == (0, None)
        assert await agent.ask("ADD", "c1", pod) == (0, result)
        link = result["interfaces"][0]["name"]
        node.run("ip", "link", "set", link, "mtu", "1300")
        status, error = await agent.ask("CHECK", "c1", pod, prevResult=result)
        assert (status, error["code"]) == (1, 101)
        assert f"link {link}: MTU is 1300, it should be 1400" in error["msg"]
        assert await agent.ask("DEL", "c1", pod, prevResult=result) == (0, None)
        assert await agent.ask("DEL", "c1", netns="") == (0, None)
        assert "eth0" not in pod.run("ip", "link")
        assert await agent.nothing_left()

    run(story)


def test_a_late_del_touches_no_other_sandbox(run, node, namespaces):
    first, second = namespaces("first"), namespaces("second")

    async def story(agent):
        _, old = await agent.ask("ADD", "c1", first, pod="web")
        _, new = await agent.ask("ADD", "c2", second, pod="web")
        assert old["interfaces"][0] == new["interfaces"][0]
        assert await agent.ask("DEL", "c1", netns="", pod="web") == (0, None)
        assert await agent.ask("CHECK", "c2", second, pod="web", prevResult=new) == (0, None)
        assert await pings(node, new["ips"][0]["address"].partition("/")[0])
        await agent.ask("DEL", "c2", second, pod="web")
        assert await agent.nothing_left()

    run(story)


def test_twenty_at_once(run, namespaces):
    containers = {f"c{n}": namespaces(f"pod{n}") for n in range(20)}

    async def story(agent):
        answers = await asyncio.gather(*(agent.ask("ADD", name, where) for name, where in containers.items()))
        assert [status for status, _ in answers] == [0] * 20
        assert len({entry["address"] for _, result in answers for entry in result["ips"]}) == 40
        gone = await asyncio.gather(*(agent.ask("DEL", name, where) for name, where in containers.items()))
        assert gone == [(0, None)] * 20
        assert await agent.nothing_left()

    run(story)


def test_a_killed_runtime_is_rolled_back(run, namespaces):
    pod = namespaces("pod")

    async def story(agent):
        agent.endpoints.may.clear()
        raw, request = agent.dial("ADD", "c1")
        socket.send_fds(raw, [request], [pod.fd])
        await agent.endpoints.waiting.wait()
        raw.close()
        await until(lambda: not list(agent.attachments))
        agent.endpoints.may.set()
        assert await agent.nothing_left()

    run(story)


def test_wrong_namespaces(run, node):
    async def story(agent):
        for namespace, words in ((None, "nothing can be opened there"), (node, "that is the node's own")):
            status, error = await agent.ask("ADD", "c1", namespace, netns="/run/netns/absent")
            assert (status, error["code"]) == (1, 4)
            assert "'/run/netns/absent'" in error["msg"]
            assert words in error["msg"]
        assert await agent.nothing_left()

    run(story)


def test_a_full_pool_and_a_wrong_pool(run, namespaces):
    pod = namespaces("pod")

    async def story(agent):
        for conf in ({"ipam": {"ipv4_pools": ["absent"]}}, {"ipam": {"ipv4_pools": ["10.5.0.0/16"]}}):
            status, error = await agent.ask("ADD", "c1", pod, **conf)
            assert (status, error["code"]) == (1, 100)
            assert conf["ipam"]["ipv4_pools"][0] in error["msg"]
        assert await agent.nothing_left()
        assert "eth0" not in pod.run("ip", "link")

    run(story)


def test_collect(run, namespaces):
    containers = {f"c{n}": namespaces(f"pod{n}") for n in range(3)}

    async def story(agent):
        for name, where in containers.items():
            await agent.ask("ADD", name, where)
        valid = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
        assert await agent.ask("GC", "", **valid) == (0, None)
        assert [entry.container_id for entry in agent.attachments] == ["c1"]
        assert [("eth0" in where.run("ip", "link")) for where in containers.values()] == [False, True, False]
        assert await agent.ask("GC", "", **{"cni.dev/valid-attachments": []}) == (0, None)
        assert await agent.nothing_left()

    run(story)
