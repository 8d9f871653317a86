"""Routes and rules into the kernel: our dataplane, from a Change to the kernel's last answer, against the tools that
take text. The peer gets its text ready-made: only its own work is timed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.namespaces import Namespace, namespace
from bench.rows import Row, median, row
from calipy.felix.calc.change import Change, NodeState, SetKey, everything
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dataplane import Area, Dataplane
from calipy.felix.drivers.nftables import open_driver
from calipy.felix.drivers.routes import RoutesDriver
from calipy.felix.objects import Owner
from calipy.felix.plans import RoutePlanner, route_owner
from calipy.felix.rules.compile import RulesPlanner, endpoint_owner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.origins import Origin
from calipy.model.routes import NextHop, Route
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS
from calipy.netlink.socket import ROUTE, NetlinkSocket

_REPEATS = 3
_ROUTES, _ENDPOINTS = 10_000, 1_000


def rows() -> Iterator[Row]:
    """Routes, then rules."""
    yield from _routes()
    yield from _endpoints()


def _routes() -> Iterator[Row]:
    ours, peer = [], []
    for _ in range(_REPEATS):
        with namespace("ours") as space, namespace("peer") as other:
            for each in (space, other):
                each.run("ip", "link", "add", "far0", "type", "veth", "peer", "name", "near0")
                each.run("ip", "link", "set", "far0", "up")
                each.run("ip", "link", "set", "near0", "up")
                each.run("ip", "addr", "add", "10.9.0.11/24", "dev", "near0")
            index = int(space.run("ip", "-o", "link", "show", "near0").partition(":")[0])
            ours.append(asyncio.run(_our_routes(space, index)))
            lines = "".join(f"route replace {prefix} via 10.9.0.1 proto 80 metric 1024\n" for prefix in _prefixes())
            peer.append(_timed(other, "ip", "-batch", "-", text=lines))
            assert _count(space) == _count(other) == _ROUTES
    yield row(f"{_ROUTES} routes", "ms", median(ours), median(peer), "ip -batch", aim="<= 1.0")


def _prefixes() -> Iterator[str]:
    for number in range(_ROUTES):
        yield f"10.{64 + (number >> 10)}.{(number >> 2) & 255}.{(number & 3) << 6}/26"


def _count(space: Namespace) -> int:
    return space.run("ip", "route", "show", "proto", "80").count("\n")


async def _our_routes(space: Namespace, index: int) -> float:
    hop = (NextHop("10.9.0.1", "near0", index),)
    wanted = [Route(prefix=prefix, origin=Origin("bgp", "peer"), next_hops=hop) for prefix in _prefixes()]
    with NetlinkSocket.open(ROUTE, namespace=space.fd) as socket:
        area = Area(RoutesDriver(socket), RoutePlanner())
        state = NodeState(settings=FelixSettings(), routes={route.key: route for route in wanted})
        return await _programmed(area, everything(state), [route_owner(route.key) for route in wanted])


def _endpoints() -> Iterator[Row]:
    ours, peer = [], []
    for _ in range(_REPEATS):
        with namespace("ours") as space, namespace("peer") as other:
            ours.append(asyncio.run(_our_endpoints(space)))
            listed = space.run("nft", "list", "table", "inet", "calipy")
            text = re.sub(r"^\tflags .*\n", "", listed, flags=re.MULTILINE)  # nft can't load what it lists here
            peer.append(_timed(other, "nft", "-f", "-", text=text))
    yield row(f"chains and dispatch of {_ENDPOINTS} endpoints", "ms", median(ours), median(peer), "nft -f", "<= 0.5")


async def _our_endpoints(space: Namespace) -> float:
    found = []
    for number in range(_ENDPOINTS):
        id_ = EndpointId("k8s", f"default/pod-{number}", "eth0")
        found.append(
            WorkloadEndpoint(
                id=id_,
                container_id=f"{number:064x}",
                interface=f"cali{number:011x}",
                addresses=(f"10.244.{number >> 8}.{number & 255}", f"fd00:10:244::{number:x}"),
            )
        )
    pools = {4: frozenset({"10.244.0.0/16"}), 6: frozenset({"fd00:10:244::/112"})}
    prefixes = {
        SetKey(id_, family): pools[family] for id_ in (NETWORK_IP_POOLS, MASQUERADED_IP_POOLS) for family in pools
    }
    hosts: dict[SetKey, frozenset[str]] = {
        SetKey(id_, family): frozenset() for id_ in (ALL_HOSTS, VXLAN_HOSTS) for family in pools
    }
    state = NodeState(
        settings=FelixSettings(),
        endpoints={endpoint.id: endpoint for endpoint in found},
        sets={**{key: "prefixes" for key in prefixes}, **{key: "addresses" for key in hosts}},
        members={**prefixes, **hosts},
    )
    driver = open_driver(space.fd)
    try:
        driver.open()
        area = Area(driver, RulesPlanner())
        return await _programmed(area, everything(state), [endpoint_owner(endpoint.id) for endpoint in found])
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
