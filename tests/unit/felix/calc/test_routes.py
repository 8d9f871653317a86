"""Which route wins for a prefix, and what it looks like: one table."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.felix.calc.next_hops import Resolver
from calipy.felix.calc.routes import Claims, View, block_of, pool_of, winner
from calipy.felix.calc.settings import FelixSettings
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import ForeignRoute, Link
from calipy.model.nodes import NodeAddress, TunnelEnd
from calipy.model.routes import LearnedRoute, Route
from calipy.model.tunnels import Tunnel
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import ObjectMeta

ETH0 = Link(index=1, name="eth0", up=True, mtu=1500)
CALI1 = Link(index=5, name="cali1", up=True)
VXLAN = Link(index=9, name="vxlan.calico", up=True)
TUNNEL = Tunnel(
    name="vxlan.calico", family=4, vni=4096, port=4789, local="10.9.0.1", parent="eth0", mac="", mtu=1450,
    address="10.244.0.0",
)  # fmt: skip
NODES = {
    "n1": NodeAddress(
        name="n1", addresses={4: "10.9.0.1/24", 6: "fd00:9::1/64"}, vxlan={4: TunnelEnd("10.244.0.0", "m1")}),
    "n2": NodeAddress(
        name="n2", addresses={4: "10.9.0.2/24", 6: "fd00:9::2/64"}, vxlan={4: TunnelEnd("10.244.1.0", "m2")}),
    "n3": NodeAddress(name="n3", addresses={4: "10.9.1.3/24"}, vxlan={}),
}  # fmt: skip
FOREIGN = (
    ForeignRoute(prefix="10.9.0.0/24", metric=0, next_hops=((None, 1),)),
    ForeignRoute(prefix="fd00:9::/64", metric=256, next_hops=((None, 1),)),
    ForeignRoute(prefix="10.9.1.0/24", metric=0, next_hops=(("10.9.0.254", 1),)),
)
WEB = WorkloadEndpoint(
    id=EndpointId("k8s", "default/web", "eth0"), container_id="c", interface="cali1", addresses=("10.244.0.5",)
)
LEARNED = LearnedRoute(prefix="10.244.1.0/26", next_hops=("10.9.0.2",), peers=("10.9.0.2", "10.9.0.7"))


def view(vxlan: str = "Never", ipip: str = "Never", **changes: Any) -> View:
    """n1's view, with one pool that is encapsulated so."""
    settings = changes.pop("settings", FelixSettings())
    pool = IPPool(
        metadata=ObjectMeta(name="four"), spec=IPPoolSpec(cidr="10.244.0.0/16", vxlan_mode=vxlan, ipip_mode=ipip)
    )
    six = IPPool(metadata=ObjectMeta(name="six"), spec=IPPoolSpec(cidr="fd00:10::/64", vxlan_mode=vxlan))
    links = changes.pop("links", (ETH0, CALI1, VXLAN))
    made = View(
        me="n1",
        settings=settings,
        nodes=NODES,
        pools=tuple((ipaddress.ip_network(p.spec.cidr), p) for p in (pool, six)),
        links={link.name: link for link in links},
        resolver=Resolver(FOREIGN, {link.index: link for link in links}),
        tunnels={4: TUNNEL} if vxlan != "Never" else {},
    )
    return replace(made, **changes)


def shown(route: Route | None) -> str:
    """A route in a line: origin, kind or ways, what it waits for."""
    if route is None:
        return "none"
    ways = ", ".join(
        f"{hop.gateway or ''} dev {hop.device}{' onlink' if hop.onlink else ''}".strip() for hop in route.next_hops
    )
    body = ways if route.kind == "unicast" else route.kind
    waits = f" ({route.waits_for})" if route.waits_for else ""
    return f"{route.origin}: {body} proto {route.protocol} metric {route.metric}{waits}"


DIRECT = FelixSettings(program_cluster_routes="Enabled")
BLOCK, OWN, POD, BLOCK6 = "10.244.1.0/26", "10.244.0.0/26", "10.244.1.7/32", "fd00:10::1:0/122"
# view, prefix, claims -> route
CASES: dict[str, tuple[View, str, Claims, str]] = {
    "nobody": (view(), BLOCK, Claims(), "none"),
    "a pod of this node": (
        view(), "10.244.0.5/32", Claims(workload=WEB), "workload default/web: dev cali1 proto 80 metric 1024"),
    "a pod whose link is absent": (
        view(links=(ETH0,)), "10.244.0.5/32", Claims(workload=WEB),
        "workload default/web:  proto 80 metric 1024 (link cali1 is absent)"),
    "a pod whose link is down": (
        view(links=(ETH0, replace(CALI1, up=False))), "10.244.0.5/32", Claims(workload=WEB),
        "workload default/web: dev cali1 proto 80 metric 1024 (link cali1 is down)"),
    "a pod wins over BGP and others": (
        view("Always"), "10.244.0.5/32", Claims(workload=WEB, learned=LEARNED, pod="n2", block="n2"),
        "workload default/web: dev cali1 proto 80 metric 1024"),
    "deviceRouteProtocol and priority": (
        view(settings=FelixSettings(device_route_protocol=3, ipv4_normal_route_priority=7)), "10.244.0.5/32",
        Claims(workload=WEB), "workload default/web: dev cali1 proto 3 metric 7"),
    "an own block": (view(), OWN, Claims(block="n1"), "block own, four: blackhole proto 80 metric 1024"),
    "an own block that a peer tells us": (
        view(), OWN, Claims(block="n1", learned=replace(LEARNED, prefix=OWN)),
        "block own, four: blackhole proto 80 metric 1024",
    ),
    "an own block of one address has no blackhole": (view(), "10.244.0.9/32", Claims(block="n1"), "none"),
    "a block of n2, no encapsulation: BGP's": (view(), BLOCK, Claims(block="n2"), "none"),
    "learned": (
        view(), BLOCK, Claims(block="n2", learned=LEARNED),
        "bgp 10.9.0.2, 10.9.0.7: 10.9.0.2 dev eth0 proto 12 metric 1024"),
    "learned, behind a router": (
        view(), BLOCK, Claims(learned=replace(LEARNED, next_hops=("10.9.1.3",))),
        "bgp 10.9.0.2, 10.9.0.7: 10.9.0.254 dev eth0 proto 12 metric 1024"),
    "learned, two ways": (
        view(), BLOCK, Claims(learned=replace(LEARNED, next_hops=("10.9.0.2", "10.9.1.3"))),
        "bgp 10.9.0.2, 10.9.0.7: 10.9.0.2 dev eth0, 10.9.0.254 dev eth0 proto 12 metric 1024"),
    "learned, one way of two is none": (
        view(), BLOCK, Claims(learned=replace(LEARNED, next_hops=("10.9.0.2", "192.0.2.1"))),
        "bgp 10.9.0.2, 10.9.0.7: 10.9.0.2 dev eth0 proto 12 metric 1024"),
    "learned, no way": (
        view(), BLOCK, Claims(learned=replace(LEARNED, next_hops=("192.0.2.1",))),
        "bgp 10.9.0.2, 10.9.0.7:  proto 12 metric 1024 (no route leads to the next hop 192.0.2.1)"),
    "learned, the uplink is down": (
        view(links=(replace(ETH0, up=False),)), BLOCK, Claims(learned=LEARNED),
        "bgp 10.9.0.2, 10.9.0.7:  proto 12 metric 1024 "
        "(the way to the next hop 10.9.0.2 (10.9.0.0/24) leads over links that are down or gone)"),
    "learned, but the pool is VXLAN's": (view("Always"), BLOCK, Claims(learned=LEARNED), "none"),
    "learned, outside all pools": (
        view("Always"), "192.0.2.0/24", Claims(learned=replace(LEARNED, prefix="192.0.2.0/24")),
        "bgp 10.9.0.2, 10.9.0.7: 10.9.0.2 dev eth0 proto 12 metric 1024"),
    "VXLAN always": (
        view("Always"), BLOCK, Claims(block="n2"), "vxlan n2: 10.244.1.0 dev vxlan.calico onlink proto 80 metric 1024"),
    "VXLAN always, IPv6 without a tunnel": (
        view("Always"), BLOCK6, Claims(block="n2"), "vxlan n2:  proto 80 metric 1024 (this node has no VXLAN tunnel)"),
    "VXLAN, the other node has no tunnel yet": (
        view("Always"), BLOCK, Claims(block="n3"),
        "vxlan n3:  proto 80 metric 1024 (node n3 has no VXLAN tunnel address yet)"),
    "VXLAN, the device is absent": (
        view("Always", links=(ETH0,)), BLOCK, Claims(block="n2"),
        "vxlan n2:  proto 80 metric 1024 (link vxlan.calico is absent)"),
    "VXLAN, a node that nobody knows": (
        view("Always"), BLOCK, Claims(block="n9"),
        "vxlan n9:  proto 80 metric 1024 (node n9 has no VXLAN tunnel address yet)"),
    "CrossSubnet, the same subnet": (
        view("CrossSubnet"), BLOCK, Claims(block="n2"),
        "vxlan-same-subnet n2: 10.9.0.2 dev eth0 proto 80 metric 1024"),
    "CrossSubnet, the same subnet, IPv6": (
        view("CrossSubnet"), BLOCK6, Claims(block="n2"),
        "vxlan-same-subnet n2: fd00:9::2 dev eth0 proto 80 metric 1024"),
    "CrossSubnet, another subnet": (
        view("CrossSubnet"), BLOCK, Claims(block="n3"),
        "vxlan n3:  proto 80 metric 1024 (node n3 has no VXLAN tunnel address yet)"),
    "a borrowed address": (
        view("Always"), POD, Claims(pod="n2"), "vxlan n2: 10.244.1.0 dev vxlan.calico onlink proto 80 metric 1024"),
    "a borrowed address out of an own block": (
        view("Always"), "10.244.0.9/32", Claims(block="n1", pod="n2"),
        "vxlan n2: 10.244.1.0 dev vxlan.calico onlink proto 80 metric 1024"),
    "programClusterRoutes, the same subnet": (
        view(settings=DIRECT), BLOCK, Claims(block="n2", learned=LEARNED),
        "same-subnet n2: 10.9.0.2 dev eth0 proto 80 metric 1024"),
    "programClusterRoutes, another subnet": (view(settings=DIRECT), BLOCK, Claims(block="n3"), "none"),
    "programClusterRoutes, IPIP": (view(ipip="Always", settings=DIRECT), BLOCK, Claims(block="n2"), "none"),
    "IPv6 is off": (view(settings=FelixSettings(ipv6_support=False)), BLOCK6, Claims(block="n1"), "none"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_winner(name: str) -> None:
    seen, prefix, claims, expected = CASES[name]
    assert shown(winner(seen, prefix, claims)) == expected


def test_the_narrowest_pool_and_its_block_size_count() -> None:
    wide = IPPool(metadata=ObjectMeta(name="wide"), spec=IPPoolSpec(cidr="10.244.0.0/16"))
    narrow = IPPool(metadata=ObjectMeta(name="narrow"), spec=IPPoolSpec(cidr="10.244.9.0/24", block_size=28))
    pools = tuple((ipaddress.ip_network(p.spec.cidr), p) for p in (wide, narrow))
    seen = replace(view(), pools=pools)
    assert pool_of(seen, "10.244.9.16/28") == narrow
    assert pool_of(seen, "10.244.8.0/26") == wide
    assert pool_of(seen, "192.0.2.0/24") is None
    assert block_of(pools, "10.244.9.17") == "10.244.9.16/28"
    assert block_of(pools, "10.244.8.17") == "10.244.8.0/26"
    assert block_of(pools, "192.0.2.1") is None


def test_a_default_route_is_the_last_resort_and_the_lower_metric_wins() -> None:
    routes = (
        ForeignRoute(prefix="0.0.0.0/0", metric=100, next_hops=(("10.9.0.254", 1),)),
        ForeignRoute(prefix="0.0.0.0/0", metric=50, next_hops=(("10.9.0.253", 1),)),
        ForeignRoute(prefix="10.9.0.0/24", metric=0, next_hops=((None, 1),)),
    )
    resolver = Resolver(routes, {1: ETH0})
    assert [hop.gateway for hop in resolver.resolve("192.0.2.1")] == ["10.9.0.253"]  # type: ignore[union-attr]
    assert [hop.gateway for hop in resolver.resolve("10.9.0.7")] == ["10.9.0.7"]  # type: ignore[union-attr]
    assert resolver.resolve("fd00::1") == "no route leads to the next hop fd00::1"
