"""FelixConfiguration applied live to the kernel: routes, what is ours, interface prefixes."""

from __future__ import annotations

from typing import Any


def routes(node: Any, family: int = 4) -> str:
    """Our routes and all on pods' links."""
    return str(node.host.run("ip", f"-{family}", "route"))


async def test_what_a_calico_node_left_is_adopted(felix: Any, world: Any, namespaces: Any) -> None:
    """Calico writes pods' routes with protocol 3 (boot) and metric 1024; its CNI plug-in one with metric 0."""
    host = namespaces("n1")
    first = await felix("n1", host)
    await first.configure(deviceRouteProtocol=3)
    pod = await first.add("a", "10.244.0.1", "fd00:10::1")
    assert "10.244.0.1 dev calia scope link metric 1024" in routes(first)
    first.stop()
    host.run("ip", "route", "add", "10.244.0.1", "dev", "calia", "proto", "3")
    host.run("ip", "route", "add", "10.244.0.99", "dev", "calia", "proto", "3", "metric", "1024")
    second = await felix("n1", host, (), endpoints=(pod.endpoint,))
    await second.until(lambda: "10.244.0.1 dev calia proto 80" in routes(second))
    assert routes(second).count("10.244.0.1 ") == 1
    assert "10.244.0.99" not in routes(second)
    assert "fd00:10::1 dev calia proto 80" in routes(second, 6)


async def test_the_same_protocol_as_calicos_is_right_as_it_is(felix: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    first = await felix("n1", host)
    await first.configure(deviceRouteProtocol=3)
    pod = await first.add("a", "10.244.0.1", "fd00:10::1")
    first.stop()
    settings = first.settings_object(deviceRouteProtocol=3)
    second = await felix("n1", host, (settings,), endpoints=(pod.endpoint,))
    assert second.counters()["routes"] == (1, 0)
    assert second.counters()["nftables"] == (1, 0)


async def test_remove_external_routes(felix: Any) -> None:
    node = await felix("n1")
    await node.configure(removeExternalRoutes=False)
    await node.add("a", "10.244.0.1")
    node.host.run("ip", "route", "add", "192.0.2.0/24", "dev", "calia")
    node.engine.dataplane.notice("routes", "refresh")
    await node.settled()
    assert "192.0.2.0/24" in routes(node)
    assert not node.repairs
    await node.configure(removeExternalRoutes=True)
    assert "192.0.2.0/24" not in routes(node)
    node.host.run("ip", "route", "add", "192.0.2.0/24", "dev", "calia")
    await node.until(lambda: "192.0.2.0/24" not in routes(node), seconds=2)
    assert "10.244.0.1 dev calia" in routes(node)


async def test_priority_protocol_and_source_of_pods_routes(felix: Any) -> None:
    node = await felix("n1")
    node.host.run("ip", "addr", "add", "10.9.0.1/32", "dev", "lo")
    node.host.run("ip", "addr", "add", "fd00:9::1/128", "dev", "lo", "nodad")
    await node.add("a", "10.244.0.1", "fd00:10::1")
    assert "10.244.0.1 dev calia proto 80 scope link metric 1024" in routes(node)
    await node.configure(
        ipv4NormalRoutePriority=77, ipv6NormalRoutePriority=78, deviceRouteProtocol=81,
        deviceRouteSourceAddress="10.9.0.1", deviceRouteSourceAddressIPv6="fd00:9::1",
    )  # fmt: skip
    assert "10.244.0.1 dev calia proto 81 scope link src 10.9.0.1 metric 77" in routes(node)
    assert "fd00:10::1 dev calia proto 81 src fd00:9::1 metric 78" in routes(node, 6)
    assert "1024" not in routes(node)
    await node.configure()
    assert "10.244.0.1 dev calia proto 80 scope link metric 1024" in routes(node)
    assert "77" not in routes(node)
    assert not node.repairs


async def test_interface_prefixes(felix: Any) -> None:
    node = await felix("n1")
    node.host.run("ip", "link", "add", "tap1", "type", "veth", "peer", "name", "tap2")
    node.host.run("ip", "link", "set", "tap1", "up")
    node.host.run("ip", "route", "add", "192.0.2.0/24", "dev", "tap1")
    await node.settled()
    assert "192.0.2.0/24" in routes(node)
    await node.configure(interfacePrefix="cali,tap")
    listed = node.host.run("nft", "list", "table", "inet", "calipy")
    for way in ("iifname", "oifname"):
        for prefix in ("cali*", "tap*"):
            assert f'{way} "{prefix}"' in listed
    node.engine.dataplane.notice("routes", "refresh")
    await node.until(lambda: "192.0.2.0/24" not in routes(node), seconds=2)


async def test_ipv6_switched_off_and_on(felix: Any, world: Any) -> None:
    node = await felix("n1")
    await node.put(world.pool("six", "fd00:10::/64"), world.block("n1", "fd00:10::/122"))
    assert "blackhole fd00:10::/122" in routes(node, 6)
    await node.configure(ipv6Support=False)
    assert "blackhole" not in routes(node, 6)
    assert "cali60-network-ip-pools" not in node.host.run("nft", "list", "table", "inet", "calipy")
    await node.configure(ipv6Support=True)
    assert "blackhole fd00:10::/122" in routes(node, 6)
    assert "cali60-network-ip-pools" in node.host.run("nft", "list", "table", "inet", "calipy")
