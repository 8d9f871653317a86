"""Routes and rules into the kernel: our dataplane, from a Change to the kernel's last answer, against the tools that
take text. The peer gets its text ready-made: only its own work is timed."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.namespaces import Namespace, namespace
from bench.rows import Row, median, row
from calipy.felix.calc.change import Change, NodeState, SetKey, everything
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dataplane import Area, Dataplane
from calipy.felix.drivers.nftables import NftablesDriver, open_driver
from calipy.felix.drivers.routes import RoutesDriver
from calipy.felix.ledger import Ledger
from calipy.felix.objects import Driver, Op, Owner
from calipy.felix.plans import Planner, RoutePlanner, route_owner
from calipy.felix.rules.compile import RulesPlanner, endpoint_owner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.origins import Origin
from calipy.model.policies import PolicyRule, Profile
from calipy.model.routes import NextHop, Route
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS
from calipy.netlink.messages import Message, Refusal, pack
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket, inside

_REPEATS = 5
_ROUTES, _ENDPOINTS = 10_000, 1_000


def rows() -> Iterator[Row]:
    """Routes, then rules."""
    yield from _routes()
    yield from _endpoints()


def _routes() -> Iterator[Row]:
    ours, peer, kernel = [], [], []
    for _ in range(_REPEATS):
        with namespace("ours") as space, namespace("peer") as other, namespace("kernel") as third:
            for each in (space, other, third):
                each.run("ip", "link", "add", "far0", "type", "veth", "peer", "name", "near0")
                each.run("ip", "link", "set", "far0", "up")
                each.run("ip", "link", "set", "near0", "up")
                each.run("ip", "addr", "add", "10.9.0.11/24", "dev", "near0")
            ours.append(asyncio.run(_our_routes(space, _link_index(space))))
            lines = "".join(f"route replace {prefix} via 10.9.0.1 proto 80 metric 1024\n" for prefix in _prefixes())
            peer.append(_timed(other, "ip", "-batch", "-", text=lines))
            recorder = Recorder()
            RoutesDriver(recorder).apply(_route_puts(_link_index(third)))  # type: ignore[arg-type]
            kernel.append(recorder.replay(ROUTE, third, at_once=500))
            assert _count(space) == _count(other) == _count(third) == _ROUTES
    yield row(f"{_ROUTES} routes", "ms", median(ours), median(peer), "ip -batch", aim="<= 1.0")
    yield row(f"{_ROUTES} routes: the kernel alone, by messages ready made", "ms", median(kernel))


def _prefixes() -> Iterator[str]:
    for number in range(_ROUTES):
        yield f"10.{64 + (number >> 10)}.{(number >> 2) & 255}.{(number & 3) << 6}/26"


def _count(space: Namespace) -> int:
    return space.run("ip", "route", "show", "proto", "80").count("\n")


def _link_index(space: Namespace) -> int:
    return int(space.run("ip", "-o", "link", "show", "near0").partition(":")[0])


def _wanted_routes(index: int) -> list[Route]:
    hop = (NextHop("10.9.0.1", "near0", index),)
    return [Route(prefix=prefix, origin=Origin("bgp", "peer"), next_hops=hop) for prefix in _prefixes()]


def _route_puts(index: int) -> tuple[Op, ...]:
    """What our driver is given for these routes."""
    state = NodeState(settings=FelixSettings(), routes={route.key: route for route in _wanted_routes(index)})
    return _operations(RoutesDriver(Recorder()), RoutePlanner(), state)  # type: ignore[arg-type]


def _operations(driver: Driver, planner: Planner, state: NodeState) -> tuple[Op, ...]:
    ledger = Ledger(driver.fingerprint, driver.order)
    for plan in planner.plans(everything(state), state):
        if plan is not None:
            ledger.want(plan.owner, plan.objects)
    return ledger.pending()


class Recorder:
    """In a driver's socket's place: keeps the messages instead of sending them."""

    port = 0

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def request(self, messages: Sequence[Message]) -> tuple[Refusal, ...]:
        """As of a socket."""
        self.messages += messages
        return ()

    batch = request

    def replay(self, protocol: int, space: Namespace, *, at_once: int) -> float:
        """Milliseconds that the kernel takes over the messages."""
        chunks = [self.messages[start : start + at_once] for start in range(0, len(self.messages), at_once)]
        packed = [pack(chunk, 1) for chunk in chunks]
        with inside(space.fd), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as raw:
            raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 64 << 20)
            raw.bind((0, 0))
            began = time.perf_counter()
            for data in packed:
                raw.send(data)
            return (time.perf_counter() - began) * 1e3


_SO_SNDBUFFORCE = 32


async def _our_routes(space: Namespace, index: int) -> float:
    wanted = _wanted_routes(index)
    with NetlinkSocket.open(ROUTE, namespace=space.fd) as opened:
        area = Area(RoutesDriver(opened), RoutePlanner())
        state = NodeState(settings=FelixSettings(), routes={route.key: route for route in wanted})
        return await _programmed(area, everything(state), [route_owner(route.key) for route in wanted])


def _endpoints() -> Iterator[Row]:
    ours, peer, kernel, objects = [], [], [], []
    for _ in range(_REPEATS):
        with namespace("ours") as space, namespace("peer") as other, namespace("kernel") as third:
            objects.append(_planned_alone())
            ours.append(asyncio.run(_our_endpoints(space)))
            listed = space.run("nft", "list", "table", "inet", "calipy")
            text = re.sub(r"^\tflags .*\n", "", listed, flags=re.MULTILINE)  # nft can't load what it lists here
            peer.append(_timed(other, "nft", "-f", "-", text=text))
            recorder = Recorder()
            driver = NftablesDriver(recorder)  # type: ignore[arg-type]
            driver.apply(_operations(driver, RulesPlanner(), _endpoint_state()))
            recorder.messages = recorder.messages[3:]  # the table by itself, which opening makes
            kernel.append(recorder.replay(NETFILTER, third, at_once=len(recorder.messages)))
            assert _chains(space) == _chains(other) == _chains(third)
    what = f"chains and dispatch of {_ENDPOINTS} endpoints"
    yield row(what, "ms", median(ours), median(peer), "nft -f", "<= 0.5")
    yield row(f"{what}: the kernel alone", "ms", median(kernel), median(peer), "nft -f")
    yield row(f"{what}: their objects alone", "ms", median(objects))


def _planned_alone() -> float:
    """Milliseconds until the objects of all are there, names and values, of which nothing is done yet."""
    state, planner = _endpoint_state(), RulesPlanner()
    began = time.perf_counter()
    plans = list(planner.plans(everything(state), state))
    took_ms = (time.perf_counter() - began) * 1e3
    assert len(plans) > _ENDPOINTS
    return took_ms


def _chains(space: Namespace) -> int:
    return space.run("nft", "list", "chains").count("chain ")


def _endpoint_state() -> NodeState:
    found = []
    for number in range(_ENDPOINTS):
        id_ = EndpointId("k8s", f"default/pod-{number}", "eth0")
        found.append(
            WorkloadEndpoint(
                id=id_,
                container_id=f"{number:064x}",
                interface=f"cali{number:011x}",
                addresses=(f"10.244.{number >> 8}.{number & 255}", f"fd00:10:244::{number:x}"),
                profiles=("kns.default",),
            )
        )
    pools = {4: frozenset({"10.244.0.0/16"}), 6: frozenset({"fd00:10:244::/112"})}
    prefixes = {
        SetKey(id_, family): pools[family] for id_ in (NETWORK_IP_POOLS, MASQUERADED_IP_POOLS) for family in pools
    }
    hosts: dict[SetKey, frozenset[str]] = {
        SetKey(id_, family): frozenset() for id_ in (ALL_HOSTS, VXLAN_HOSTS) for family in pools
    }
    allow = (PolicyRule(action="allow", number=0),)
    return NodeState(
        settings=FelixSettings(),
        endpoints={endpoint.id: endpoint for endpoint in found},
        profiles={"kns.default": Profile(name="kns.default", ingress=allow, egress=allow)},
        sets={**{key: "prefixes" for key in prefixes}, **{key: "addresses" for key in hosts}},
        members={**prefixes, **hosts},
    )


async def _our_endpoints(space: Namespace) -> float:
    state, driver = _endpoint_state(), open_driver(space.fd)
    try:
        driver.open()
        area = Area(driver, RulesPlanner())
        return await _programmed(area, everything(state), [endpoint_owner(id_) for id_ in state.endpoints])
    finally:
        driver.close()


async def _programmed(area: Area, change: Change, owners: list[Owner]) -> float:
    """Milliseconds from a change's submission until the kernel holds it; the first reading of the kernel included."""
    with ThreadPoolExecutor(1, "kernel") as thread:
        dataplane = Dataplane([area], thread)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(dataplane.run())
            began = time.perf_counter()
            serial = dataplane.submit(change)
            await dataplane.programmed(owners, serial)
            took_ms = (time.perf_counter() - began) * 1e3
            task.cancel()
    return took_ms


def _timed(space: Namespace, *command: str, text: str) -> float:
    """Milliseconds of a command, fork and exec included, less those of `ip netns exec` itself."""
    began = time.perf_counter()
    space.run("true")
    entering = time.perf_counter() - began
    began = time.perf_counter()
    space.run(*command, text=text)
    return (time.perf_counter() - began - entering) * 1e3
