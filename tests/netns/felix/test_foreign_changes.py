"""What others do to what is ours: noticed by netlink, repaired within a second, counted. Our own writes never count."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

VXLAN = "vxlan.calico"
# What somebody does -> the driver that repairs it, and the command and text that show that it is whole.
CHANGES = {
    "a block's route deleted": (
        "ip route del blackhole 10.244.0.0/26", "routes", "ip route", "blackhole 10.244.0.0/26"),
    "an IPv6 block's route deleted": (
        "ip -6 route del blackhole fd00:10::/122 metric 1024", "routes", "ip -6 route", "blackhole fd00:10::/122"),
    "a block's route replaced": (
        "ip route replace 10.244.0.0/26 dev up0 proto 80 metric 1024", "routes", "ip route", "blackhole 10.244.0.0/26"),
    "a pod's route deleted": ("ip route del 10.244.0.5", "routes", "ip route", "10.244.0.5 dev calia"),
    "a pod's IPv6 route deleted": ("ip -6 route del fd00:10::5", "routes", "ip -6 route", "fd00:10::5 dev calia"),
    "a tunnel's route deleted": ("ip route del 10.244.1.0/26", "routes", "ip route", "10.244.1.0/26 via 10.244.1.0"),
    "all routes of ours flushed": ("ip route flush proto 80", "routes", "ip route", "10.244.1.0/26 via 10.244.1.0"),
    "a route of ours too many": (
        "ip route add blackhole 10.77.0.0/26 proto 80", "routes", "ip route show 10.77.0.0/26 | wc -l", "0"),
    "the tunnel device deleted": (f"ip link del {VXLAN}", "links", f"ip addr show {VXLAN}", "10.244.0.0/32"),
    "the tunnel device set down": (f"ip link set {VXLAN} down", "links", f"ip link show {VXLAN}", ",UP,"),
    "the tunnel's MTU changed": (f"ip link set {VXLAN} mtu 1300", "links", f"ip link show {VXLAN}", "mtu 1450"),
    "the tunnel's address deleted": (
        f"ip addr del 10.244.0.0/32 dev {VXLAN}", "links", f"ip addr show {VXLAN}", "10.244.0.0/32"),
    "a neighbour deleted": (
        f"ip neigh del 10.244.1.0 dev {VXLAN}", "links", f"ip neigh show dev {VXLAN}", "10.244.1.0 lladdr 66:"),
    "a neighbour changed": (
        f"ip neigh replace 10.244.1.0 lladdr 66:00:00:00:00:09 dev {VXLAN} nud permanent", "links",
        f"ip neigh show dev {VXLAN} | grep -v 00:09", "10.244.1.0 lladdr 66:"),
    "a forwarding entry deleted": (
        f"for m in $(bridge fdb show dev {VXLAN} | cut -d' ' -f1); do bridge fdb del $m dev {VXLAN}; done",
        "links", f"bridge fdb show dev {VXLAN}", "dst 10.9.0.2 self permanent"),
}  # fmt: skip


async def vxlan_node(felix: Any, world: Any, host: Any, **options: Any) -> Any:
    """n1 with a pod, an own block a family, and n2 at the far end of a tunnel."""
    if "up0" not in host.run("ip", "-br", "link"):
        host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        host.run("ip", "addr", "add", "10.9.0.1/24", "dev", "up0")
        host.run("ip", "link", "set", "up0", "up")
        host.run("ip", "link", "set", "up1", "up")
    values = (
        world.node("n1", "10.9.0.1/24", tunnel="10.244.0.0"),
        world.node("n2", "10.9.0.2/24", tunnel="10.244.1.0"),
        world.pool("four", "10.244.0.0/16", vxlan_mode="Always", nat_outgoing=True),
        world.pool("six", "fd00:10::/64"),
        world.block("n1", "10.244.0.0/26"),
        world.block("n1", "fd00:10::/122"),
        world.block("n2", "10.244.1.0/26"),
    )
    node = await felix("n1", host, values, **options)
    await node.until(lambda: "10.244.1.0/26 via" in host.run("ip", "route"))
    return node


@pytest.mark.parametrize("name", CHANGES)
async def test_a_foreign_change_is_repaired_and_counted(felix: Any, world: Any, namespaces: Any, name: str) -> None:
    command, driver, show, whole = CHANGES[name]
    host = namespaces("n1")
    node = await vxlan_node(felix, world, host)
    await node.add("a", "10.244.0.5", "fd00:10::5")
    await node.settled()
    assert not node.repairs, "our own writes"
    reads = node.counters()[driver][0]
    host.run("sh", "-c", command)
    await node.until(lambda: node.repaired[driver], seconds=1)
    await node.until(lambda: whole in host.run("sh", "-c", show), seconds=1)
    assert sum(node.repairs.values()) == 1, "the repair itself is no news"
    assert node.counters()[driver][0] - reads == 1


async def test_a_tunnel_whose_device_was_deleted_has_its_routes_again(felix: Any, world: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    node = await vxlan_node(felix, world, host)
    host.run("ip", "link", "del", VXLAN)
    await node.until(lambda: "10.244.1.0/26 via 10.244.1.0" in host.run("ip", "route"), seconds=2)
    assert "10.244.1.0 lladdr 66:" in host.run("ip", "neigh", "show", "dev", VXLAN)


async def test_nobody_else_can_touch_a_table_that_is_owned(felix: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    node = await felix("n1", host)
    await node.add("a", "10.244.0.5")
    listed = host.run("nft", "-s", "list", "table", "inet", "calipy")
    host.run("nft", "flush", "ruleset")
    with pytest.raises(AssertionError, match="Operation not permitted"):
        host.run("nft", "delete", "table", "inet", "calipy")
    await node.settled()
    assert host.run("nft", "-s", "list", "table", "inet", "calipy") == listed
    assert not node.repairs


@pytest.mark.parametrize(
    "command",
    [
        "delete table inet calipy",
        "flush chain inet calipy filter-FORWARD",
        "add rule inet calipy filter-FORWARD accept",
        'delete element inet calipy cali-from-wl-dispatch-map { "calia" }',
        "add chain inet calipy strange",
        "add chain inet calipy strange { type filter hook ingress device lo priority 0; }",
        "add set inet calipy strange { type ipv4_addr . inet_service; elements = { 192.0.2.1 . 80 } ; }",
        "add map inet calipy strange { type ipv4_addr : ipv4_addr; elements = { 192.0.2.1 : 192.0.2.2 } ; }",
        "add element inet calipy cali40-all-hosts-net { 192.0.2.1 }",
    ],
)
async def test_an_open_table_is_repaired(felix: Any, world: Any, namespaces: Any, command: str) -> None:
    host = namespaces("n1")
    node = await felix("n1", host, [world.node("n2", "10.9.0.2/24")], own_table=False)
    await node.add("a", "10.244.0.5")
    await node.settled()
    listed = host.run("nft", "-s", "list", "table", "inet", "calipy")
    assert not node.repairs
    host.run("nft", command)
    await node.until(lambda: node.repaired["nftables"], seconds=1)
    assert sorted(host.run("nft", "-s", "list", "table", "inet", "calipy").split()) == sorted(listed.split())


async def test_a_table_deleted_between_two_agents_is_whole_after_the_start(felix: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    first = await felix("n1", host)
    listed = host.run("nft", "-s", "list", "table", "inet", "calipy")
    first.stop()
    assert host.run("nft", "list", "ruleset")
    host.run("nft", "delete", "table", "inet", "calipy")
    await felix("n1", host)
    assert host.run("nft", "-s", "list", "table", "inet", "calipy") == listed


async def test_lost_notifications_lead_to_a_full_reading(felix: Any, world: Any, namespaces: Any, caplog: Any) -> None:
    host = namespaces("n1")
    node = await vxlan_node(felix, world, host)
    flood = [f"route {verb} blackhole 11.{i >> 8}.{i & 255}.0/24" for verb in ("add", "del") for i in range(12_000)]
    host.run("ip", "route", "del", "blackhole", "10.244.0.0/26")
    script = "\n".join(
        [*flood, "route add 10.50.0.0/16 via 10.9.0.7", f"link del {VXLAN}", "addr add 10.8.0.1/24 dev up0"]
    )
    host.run("ip", "-batch", "-", text=script)
    await node.until(lambda: "blackhole 10.244.0.0/26" in host.run("ip", "route"), seconds=3)
    await node.until(lambda: "10.244.1.0/26 via 10.244.1.0" in host.run("ip", "route"), seconds=3)
    assert "the kernel dropped notifications" in caplog.text
    assert any(found.address == "10.8.0.1" for found in node.engine.monitor.addresses)
    assert {"routes", "links"} <= node.repairs.keys()


OTHER_AGENT = """
import sys, time
from calipy.felix.drivers.nftables import open_driver
driver = open_driver(); driver.open(); print("mine", flush=True); sys.stdin.read()
"""


async def test_the_second_agent_names_the_first_and_waits(felix: Any, namespaces: Any, caplog: Any) -> None:
    host = namespaces("n1")
    first = host.popen(sys.executable, "-c", OTHER_AGENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"mine\n"
        second = asyncio.get_running_loop().create_task(felix("n1", host))
        await asyncio.sleep(1.2)
        assert not second.done()
        (told,) = [record.getMessage() for record in caplog.records if "is owned by" in record.getMessage()]
        assert f"table inet calipy is owned by process {first.pid} (" in told
        assert sys.executable in told
        first.stdin.close()
        first.wait(5)
        await asyncio.wait_for(second, 5)
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
