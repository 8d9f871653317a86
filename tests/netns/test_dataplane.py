"""The dataplane on the real kernel: what it writes, adopts, repairs, and what packets then do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.felix.calc.change import NodeState, SetKey, difference, everything
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dataplane import Area, Dataplane, Refused
from calipy.felix.drivers.links import LinksDriver
from calipy.felix.drivers.nftables import NftablesDriver
from calipy.felix.drivers.routes import RoutesDriver
from calipy.felix.objects import Op, Outcome
from calipy.felix.plans import RoutePlanner, TunnelPlanner, route_owner
from calipy.felix.rules.compile import STATIC, RulesPlanner, endpoint_owner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.origins import Origin
from calipy.model.routes import NextHop, Route
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS
from calipy.model.tunnels import Tunnel, TunnelPeer
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket

POOLS = {4: "10.244.0.0/16", 6: "fd00:10::/48"}


def endpoint(name: str, *addresses: str) -> WorkloadEndpoint:
    id_ = EndpointId("k8s", f"default/{name}", "eth0")
    return WorkloadEndpoint(id=id_, container_id=name, interface=f"cali{name}", addresses=addresses)


def state(*endpoints: WorkloadEndpoint, routes: tuple[Route, ...] = (), **fields: Any) -> NodeState:
    sets: dict[SetKey, Any] = {}
    members = {}
    for family in (4, 6):
        for id_ in (NETWORK_IP_POOLS, MASQUERADED_IP_POOLS):
            sets[SetKey(id_, family)] = "prefixes"
            members[SetKey(id_, family)] = frozenset({POOLS[family]})
        for id_ in (ALL_HOSTS, VXLAN_HOSTS):
            sets[SetKey(id_, family)] = "addresses"
            members[SetKey(id_, family)] = frozenset({"10.9.0.1"} if family == 4 else {"fd00:9::1"})
    return NodeState(
        settings=fields.pop("settings", FelixSettings()),
        endpoints={found.id: found for found in endpoints},
        sets=sets,
        members=members,
        routes={route.key: route for route in routes},
        **fields,
    )


class Node:
    """A dataplane in a namespace."""

    def __init__(self, namespace: Any, thread: ThreadPoolExecutor, own: bool = True) -> None:
        self.namespace = namespace
        self.route_socket = NetlinkSocket.open(ROUTE, namespace=namespace.fd)
        self.nftables = NftablesDriver(NetlinkSocket.open(NETFILTER, namespace=namespace.fd), own=own)
        self.planner = RulesPlanner()
        self.links = LinksDriver(self.route_socket, namespace.fd)
        self.areas = [
            Area(self.nftables, self.planner),
            Area(self.links, TunnelPlanner()),
            Area(RoutesDriver(self.route_socket), RoutePlanner()),
        ]
        self.dataplane = Dataplane(self.areas, thread)
        self.state = NodeState(settings=FelixSettings())

    async def become(self, new: NodeState, revisions: Mapping[str, int] = {}) -> int:
        change = difference(self.state, new) if self.dataplane.state else everything(new)
        change = replace(change, revisions=revisions)
        self.state = new
        serial = self.dataplane.submit(change)
        await asyncio.wait_for(self.dataplane.programmed([STATIC], serial), 10)
        return serial

    @property
    def written(self) -> list[int]:
        return [area.writes for area in self.areas]

    def close(self) -> None:
        self.route_socket.close()
        self.links.close()
        self.nftables.close()


@pytest.fixture
async def nodes(namespaces: Callable[[str], Any]) -> AsyncIterator[Callable[[Any], Node]]:
    made: list[Node] = []
    with ThreadPoolExecutor(1, "kernel") as thread:
        async with asyncio.TaskGroup() as tasks:

            def make(namespace: Any, own: bool = True) -> Node:
                node = Node(namespace, thread, own)
                made.append(node)
                running.append(tasks.create_task(node.dataplane.run()))
                return node

            running: list[asyncio.Task[None]] = []
            yield make
            for task in running:
                task.cancel()
        for node in made:
            node.close()


async def test_chains_sets_and_routes_are_written_and_taken_over(nodes: Any, namespaces: Any) -> None:
    host = namespaces("host")
    first = nodes(host)
    blackhole = Route(prefix="10.244.0.0/26", origin=Origin("block", "own"), kind="blackhole")
    wanted = state(endpoint("a", "10.244.0.1", "fd00:10::1"), endpoint("b", "10.244.0.2"), routes=(blackhole,))
    await first.become(wanted)
    listed = host.run("nft", "list", "table", "inet", "calipy")
    assert '"calia" : goto cali-fw-calia' in listed
    assert "10.244.0.0/16" in listed
    assert "blackhole 10.244.0.0/26 metric 1024" in host.run("ip", "route", "show", "proto", "80")
    first.close()
    second = nodes(host)
    await second.become(wanted)
    assert second.written == [0, 0, 0]
    await second.become(state(endpoint("b", "10.244.0.2")))
    listed = host.run("nft", "list", "table", "inet", "calipy")
    assert "calia" not in listed
    assert "10.244.0.0/26" not in host.run("ip", "route")


async def test_one_more_endpoint_compiles_one_owner_and_reads_nothing(nodes: Any, namespaces: Any) -> None:
    node = nodes(namespaces("host"))
    many = [endpoint(f"x{n}", f"10.244.1.{n}") for n in range(200)]
    await node.become(state(*many))
    compiled, reads = node.planner.compiled, node.areas[0].reads
    batches = node.nftables.batches
    new = endpoint("new", "10.244.2.1")
    serial = await node.become(state(*many, new))
    await asyncio.wait_for(node.dataplane.programmed([endpoint_owner(new.id)], serial), 5)
    assert (node.planner.compiled - compiled, node.areas[0].reads - reads) == (1, 0)
    assert node.nftables.batches - batches == 1
    await node.become(state(*many))
    assert (node.planner.compiled - compiled, node.areas[0].reads - reads) == (2, 0)


async def test_a_refused_route_is_named_and_stops_no_other(nodes: Any, namespaces: Any) -> None:
    host = namespaces("host")
    node = nodes(host)
    bad = Route(prefix="10.1.0.0/26", origin=Origin("bgp"), next_hops=(NextHop("192.0.2.1", "gone", 99),))
    good = Route(prefix="10.2.0.0/26", origin=Origin("block"), kind="blackhole")
    serial = await node.become(state(routes=(bad, good)))
    with pytest.raises(Refused, match=r"10\.1\.0\.0/26"):
        await asyncio.wait_for(node.dataplane.programmed([route_owner(bad.key)], serial), 5)
    await asyncio.wait_for(node.dataplane.programmed([route_owner(good.key)], serial), 5)
    assert "10.2.0.0/26" in host.run("ip", "route")


async def test_what_others_delete_comes_back(nodes: Any, namespaces: Any) -> None:
    host = namespaces("host")
    node = nodes(host)
    good = Route(prefix="10.2.0.0/26", origin=Origin("block"), kind="blackhole")
    await node.become(state(routes=(good,)))
    host.run("ip", "route", "del", "blackhole", "10.2.0.0/26")
    node.dataplane.notice("routes", "route 10.2.0.0/26 was deleted by somebody else")
    area = node.areas[2]
    await node.dataplane.idle()
    assert area.reads == 2
    assert "10.2.0.0/26" in host.run("ip", "route")
    assert host.run("nft", "flush", "ruleset") == ""
    assert "cali-from-wl-dispatch" in host.run("nft", "list", "ruleset")


class Flapping(RoutesDriver):
    """Routes of which one vanishes between its writing and the end of the batch, as when its link goes down and up."""

    flap: Callable[[], None] | None = None

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        outcome = super().apply(ops)
        if self.flap is not None:
            self.flap()
            self.flap = None
        return outcome


async def test_a_route_that_vanishes_while_a_batch_is_written_comes_back(namespaces: Any) -> None:
    host, loop = namespaces("host"), asyncio.get_running_loop()
    routes = {f"10.2.{number}.0/24" for number in range(256)} | {"10.3.0.0/24"}
    wanted = state(routes=tuple(Route(prefix=route, origin=Origin("block"), kind="blackhole") for route in routes))
    told = threading.Event()
    with NetlinkSocket.open(ROUTE, namespace=host.fd) as socket, ThreadPoolExecutor(1, "kernel") as thread:
        driver = Flapping(socket)
        dataplane = Dataplane([Area(driver, RoutePlanner())], thread)

        def tell() -> None:
            dataplane.vanished("routes", driver.over(7))
            told.set()

        def flap() -> None:
            host.run("ip", "route", "del", "blackhole", "10.2.9.0/24")
            loop.call_soon_threadsafe(tell)
            told.wait(5)

        driver.flap = flap
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(dataplane.run())
            dataplane.submit(everything(wanted))
            await asyncio.wait_for(dataplane.idle(), 10)
            running.cancel()
        assert told.is_set()
        assert set(host.run("ip", "route").split()) >= routes


async def test_a_set_that_turns_from_addresses_to_prefixes_moves_with_its_users(nodes: Any, namespaces: Any) -> None:
    import msgspec

    host = namespaces("host")
    node = nodes(host)
    hosts_too = FelixSettings(nat_outgoing_exclusions="IPPoolsAndHostIPs")
    before = state(settings=hosts_too)
    await node.become(before)
    assert "@cali40-all-hosts-net masquerade" in host.run("nft", "list", "ruleset").replace(
        " counter packets 0 bytes 0", ""
    )
    key = SetKey(ALL_HOSTS, 4)
    after = msgspec.structs.replace(
        before,
        sets={**before.sets, key: "prefixes"},
        members={**before.members, key: frozenset({"10.9.0.1/32", "10.20.0.0/24", "10.20.1.0/24"})},
    )
    await node.become(after)
    listed = host.run("nft", "list", "ruleset")
    assert "@cali40-all-hosts-net-nets" in listed
    assert "set cali40-all-hosts-net {" not in listed
    assert "10.20.0.0/24, 10.20.1.0/24" in " ".join(listed.split())
    reads = node.areas[0].reads
    node.dataplane.notice("nftables", "look again")
    await node.dataplane.idle()
    assert (node.areas[0].reads - reads, node.areas[0].repairs) == (1, 0), "what is read is what was written"


async def test_a_tunnel_with_its_peers(nodes: Any, namespaces: Any) -> None:
    host = namespaces("host")
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    host.run("ip", "addr", "add", "10.9.0.1/24", "dev", "up0")
    node = nodes(host)
    peer = TunnelPeer("n2", "10.244.1.0", "66:00:00:00:00:02", "10.9.0.2")
    tunnel = Tunnel(
        name="vxlan.calico", family=4, vni=4096, port=4789, local="10.9.0.1", parent="up0",
        mac="66:00:00:00:00:01", mtu=1450, address="10.244.0.0", peers=(peer,),
    )  # fmt: skip
    wanted = state(tunnels={"vxlan.calico": tunnel})
    await node.become(wanted)
    assert "10.244.0.0/32" in host.run("ip", "addr", "show", "dev", "vxlan.calico")
    assert "66:00:00:00:00:02 dst 10.9.0.2 self permanent" in host.run("bridge", "fdb", "show", "dev", "vxlan.calico")
    node.close()
    again = nodes(host)
    await again.become(wanted)
    assert again.written == [0, 0, 0]
    host.run("ip", "link", "del", "vxlan.calico")
    again.dataplane.notice("links", "gone")
    await again.dataplane.idle()
    assert "vxlan.calico" in host.run("ip", "-o", "link")


async def test_a_chain_that_others_jump_to_is_busy_and_goes_after_a_reading(
    nodes: Any, namespaces: Any, caplog: Any
) -> None:
    host = namespaces("host")
    node = nodes(host, own=False)
    a, b = endpoint("a", "10.244.0.1"), endpoint("b", "10.244.0.2")
    await node.become(state(a, b))
    host.run("nft", "add chain inet calipy strange; add rule inet calipy strange jump cali-fw-calia")
    await node.become(state(b))
    await asyncio.wait_for(node.dataplane.idle(), 5)
    assert "cali-fw-calia can't be deleted: Device or resource busy; reading the kernel anew" in caplog.text
    listed = host.run("nft", "list", "table", "inet", "calipy")
    assert "calia" not in listed
    assert "strange" not in listed
    assert "calib" in listed
    assert not node.dataplane.refused


async def test_a_revision_is_programmed_once_the_kernel_holds_all_up_to_it(namespaces: Any, nodes: Any) -> None:
    """What the kernel refuses doesn't hold it up: that is told apart."""
    node = nodes(namespaces("host"))
    told: list[Mapping[str, int]] = []
    node.dataplane.on_programmed = lambda: told.append(node.dataplane.programmed_revisions)
    await node.become(state(endpoint("a", "10.244.0.1")), {"NetworkPolicy": 3, "Tier": 1})
    await node.dataplane.idle()
    assert told[-1] == {"NetworkPolicy": 3, "Tier": 1}
    nowhere = Route(prefix="10.5.0.0/24", origin=Origin("test"), next_hops=(NextHop("192.0.2.1", "none", 999),))
    await node.become(state(endpoint("a", "10.244.0.1"), routes=(nowhere,)), {"NetworkPolicy": 4})
    await node.dataplane.idle()
    assert told[-1] == {"NetworkPolicy": 4, "Tier": 1}
    assert route_owner(nowhere.key) in node.dataplane.refused
