"""VXLAN between nodes: what the devices look like, who is reached how, and nothing left when it is switched off."""

from __future__ import annotations

import json
from typing import Any

import pytest

# node -> (address, IPv6 address, tunnel address, IPv6 tunnel address, its pod)
PLAN = {
    "n1": ("10.9.0.1/24", "fd00:9::1/64", "10.244.1.0", "fd00:10::1:0", ("10.244.1.1", "fd00:10::1:1")),
    "n2": ("10.9.0.2/24", "fd00:9::2/64", "10.244.2.0", "fd00:10::2:0", ("10.244.2.1", "fd00:10::2:1")),
    "n3": ("10.9.1.3/24", "fd00:91::3/64", "10.244.3.0", "fd00:10::3:0", ("10.244.3.1", "fd00:10::3:1")),
}
BLOCKS = {name: (f"10.244.{name[1]}.0/26", f"fd00:10::{name[1]}:0/122") for name in PLAN}
DEVICES = {4: "vxlan.calico", 6: "vxlan-v6.calico"}


class Cluster:
    """n1 and n2 on one segment, n3 behind a router; a pod on each."""

    def __init__(self, world: Any, nodes: dict[str, Any]) -> None:
        self._world = world
        self.nodes = nodes
        self.hosts = {name: node.host for name, node in nodes.items()}

    async def become(self, mode: str, nodes: tuple[str, ...] = tuple(PLAN)) -> None:
        """All pools use VXLAN so; each node knows the same."""
        world = self._world
        values = [
            world.pool("four", "10.244.0.0/16", vxlan_mode=mode),
            world.pool("six", "fd00:10::/96", vxlan_mode=mode),
            *(world.block(name, block) for name in nodes for block in BLOCKS[name]),
        ]
        for name in nodes:
            address, address6, tunnel, tunnel6, _ = PLAN[name]
            drawn = (tunnel, tunnel6) if mode != "Never" else ("", "")
            values.append(world.node(name, address, address6, *drawn))
        for node in self.nodes.values():
            await node.put(*values)
        for node in self.nodes.values():
            await node.settled()

    def routes(self, name: str, family: int) -> dict[str, str]:
        """Block or pod -> way, of our routes."""
        lines = self.hosts[name].run("ip", f"-{family}", "route", "show", "proto", "80").splitlines()
        return {line.split()[0] if line[0] != "b" else line.split()[1]: line for line in lines}

    def device(self, name: str, family: int) -> dict[str, Any]:
        """As `ip -d -j link` shows it."""
        found = json.loads(self.hosts[name].run("ip", "-d", "-j", "link", "show", DEVICES[family]))
        return dict(found[0])

    def reach(self, wire: Any, source: str, target: str, family: int) -> bool:
        """A packet from pod to pod, and its source is the pod's own."""
        which = 0 if family == 4 else 1
        ends = {
            name: (self.nodes[name].pods[f"p{name[1]}"].namespace, PLAN[name][4][which]) for name in (source, target)
        }
        heard = wire.passes(wire.mouth(*ends[source]), wire.ear(*ends[target]))
        return heard is not None and heard[0] == ends[source][1]


@pytest.fixture
async def cluster(felix: Any, world: Any, namespaces: Any) -> Cluster:
    router = namespaces("r")
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    router.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
    router.run("ip", "link", "add", "br1", "type", "bridge", "mcast_snooping", "0")
    for bridge, addresses in (
        ("br0", ("10.9.0.254/24", "fd00:9::254/64")),
        ("br1", ("10.9.1.254/24", "fd00:91::254/64")),
    ):
        for address in addresses:
            router.run("ip", "addr", "add", address, "dev", bridge, *(["nodad"] * (":" in address)))
        router.run("ip", "link", "set", bridge, "up")
    nodes = {}
    for name, (address, address6, _, _, pod) in PLAN.items():
        host = namespaces(name)
        router.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
        router.run("ip", "link", "set", f"to-{name}", "master", "br1" if name == "n3" else "br0", "up")
        host.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
        host.run("ip", "addr", "add", address, "dev", "eth0")
        host.run("ip", "addr", "add", address6, "dev", "eth0", "nodad")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "route", "add", "default", "via", "10.9.1.254" if name == "n3" else "10.9.0.254")
        host.run("ip", "-6", "route", "add", "default", "via", "fd00:91::254" if name == "n3" else "fd00:9::254")
        nodes[name] = await felix(name, host)
        await nodes[name].add(f"p{name[1]}", *pod)
    return Cluster(world, nodes)


@pytest.mark.parametrize("family", [4, 6])
async def test_always_goes_through_the_tunnel(cluster: Cluster, wire: Any, family: int) -> None:
    await cluster.become("Always")
    device = cluster.device("n1", family)
    data = device["linkinfo"]["info_data"]
    local = {4: ("local", "10.9.0.1"), 6: ("local6", "fd00:9::1")}[family]
    assert (data["id"], data["port"], data["link"], data[local[0]]) == (4096, 4789, "eth0", local[1])
    assert data["learning"] is False
    assert "group" not in data
    assert device["mtu"] == {4: 1450, 6: 1430}[family]
    assert "UP" in device["flags"]
    assert device["address"][:3] == "66:"
    which = 2 if family == 4 else 3
    addresses = cluster.hosts["n1"].run("ip", "-o", "addr", "show", "dev", DEVICES[family])
    assert f"{PLAN['n1'][which]}/{32 if family == 4 else 128}" in addresses
    routes = cluster.routes("n1", family)
    index = 0 if family == 4 else 1
    for other in ("n2", "n3"):
        assert f"via {PLAN[other][which]} dev {DEVICES[family]}" in routes[BLOCKS[other][index]]
        assert "onlink" in routes[BLOCKS[other][index]]
        mac, remote = cluster.device(other, family)["address"], PLAN[other][index].partition("/")[0]
        neighbours = cluster.hosts["n1"].run("ip", "neigh", "show", "dev", DEVICES[family])
        assert f"{PLAN[other][which]} lladdr {mac} PERMANENT" in neighbours
        assert f"{mac} dst {remote} self permanent" in cluster.hosts["n1"].run(
            "bridge", "fdb", "show", "dev", DEVICES[family]
        )
    assert cluster.reach(wire, "n1", "n2", family)
    assert cluster.reach(wire, "n3", "n1", family)
    assert cluster.reach(wire, "n2", "n3", family)
    size = 1450 if family == 4 else 1430
    options = ["-M", "do", "-s", str(size - (28 if family == 4 else 48))]
    pod = cluster.nodes["n1"].pods["p1"].namespace
    pod.run("ip", "link", "set", "eth0", "mtu", str(size))
    cluster.nodes["n3"].pods["p3"].namespace.run("ip", "link", "set", "eth0", "mtu", str(size))
    for name in ("n1", "n3"):
        cluster.hosts[name].run("ip", "link", "set", f"calip{name[1]}", "mtu", str(size))
    assert "1 received" in pod.run("ping", "-c1", "-W2", *options, PLAN["n3"][4][index]), "a packet of full size fits"
    # The node itself reaches a pod behind the tunnel, as its tunnel address.
    ear = wire.ear(cluster.nodes["n3"].pods["p3"].namespace, PLAN["n3"][4][index])
    mouth = wire.mouth(cluster.hosts["n1"], PLAN["n1"][index].partition("/")[0])
    heard = wire.passes(mouth, ear)
    assert heard is not None
    assert heard[0] == PLAN["n1"][which]
    word = wire.word()
    ear.socket.sendto(word, heard)
    mouth.settimeout(2)
    assert mouth.recv(100) == word


@pytest.mark.parametrize("family", [4, 6])
async def test_cross_subnet_goes_straight_where_it_can(cluster: Cluster, wire: Any, family: int) -> None:
    await cluster.become("CrossSubnet")
    index = 0 if family == 4 else 1
    routes = cluster.routes("n1", family)
    assert f"via {PLAN['n2'][index].partition('/')[0]} dev eth0" in routes[BLOCKS["n2"][index]]
    assert f"dev {DEVICES[family]}" in routes[BLOCKS["n3"][index]]
    assert "blackhole" in routes[BLOCKS["n1"][index]]
    for source, target in (("n1", "n2"), ("n2", "n1"), ("n1", "n3"), ("n3", "n2")):
        assert cluster.reach(wire, source, target, family), (source, target)


async def test_every_change_of_mode_live_and_without_leftovers(cluster: Cluster, wire: Any) -> None:
    await cluster.become("Never")
    never = {name: state(host) for name, host in cluster.hosts.items()}
    found = {}
    for mode in ("CrossSubnet", "Always", "CrossSubnet", "Never", "Always", "Never"):
        await cluster.become(mode)
        now = {name: state(host) for name, host in cluster.hosts.items()}
        if mode in found:
            assert now == found[mode], f"{mode}: not as the first time"
        found[mode] = now
        if mode != "Never":
            assert cluster.reach(wire, "n1", "n2", 4)
            assert cluster.reach(wire, "n3", "n1", 6)
    assert found["Never"] == never
    assert not [line for line in never["n1"] if line.startswith("vxlan") or " dev vxlan" in line]
    assert not any(node.repairs for node in cluster.nodes.values())
    assert not any(node.engine.dataplane.refused for node in cluster.nodes.values())


def state(host: Any) -> list[str]:
    """Links, addresses, routes, neighbours, forwarding entries and table of a node, as text without counters."""
    commands = (
        "ip -br link | cut -d' ' -f1", "ip -br addr | grep vxlan | sed 's/fe80[^ ]*//'", "ip route",
        "ip -6 route | grep -v fe80",
        "ip neigh show nud permanent", "for d in vxlan.calico vxlan-v6.calico; do bridge fdb show dev $d; done 2>&1",
        "nft -s list table inet calipy",
    )  # fmt: skip
    return [line for command in commands for line in sorted(host.run("sh", "-c", f"{command}; true").splitlines())]


async def test_a_node_that_goes_takes_its_entries_along(cluster: Cluster) -> None:
    await cluster.become("Always")
    one = cluster.nodes["n1"]
    mac = cluster.device("n3", 4)["address"]
    assert mac in cluster.hosts["n1"].run("bridge", "fdb", "show", "dev", DEVICES[4])
    await one.gone("Node", "n3")
    shown = "".join(state(cluster.hosts["n1"]))
    for trace in (mac, "10.244.3.0 ", "10.9.1.3"):
        assert trace not in shown, trace


INCOMPATIBLE = {
    "another VNI": ("id 7 local 10.9.0.1 dev eth0 dstport 4789 nolearning", True),
    "another port": ("id 4096 local 10.9.0.1 dev eth0 dstport 8472 nolearning", True),
    "another local address": ("id 4096 local 10.9.0.77 dev eth0 dstport 4789 nolearning", True),
    "no parent": ("id 4096 local 10.9.0.1 dstport 4789 nolearning", True),
    "learning": ("id 4096 local 10.9.0.1 dev eth0 dstport 4789", True),
    "a group": ("id 4096 group 239.1.1.1 local 10.9.0.1 dev eth0 dstport 4789 nolearning", True),
    "another MAC and MTU": ("id 4096 local 10.9.0.1 dev eth0 dstport 4789 nolearning", False),
}


@pytest.mark.parametrize("name", INCOMPATIBLE)
async def test_a_device_that_does_not_fit_is_made_anew(felix: Any, world: Any, namespaces: Any, name: str) -> None:
    options, recreated = INCOMPATIBLE[name]
    host, other = namespaces("n1"), namespaces("n2")
    world.uplink(host, other, "eth0", ("10.9.0.1/24", "10.9.0.2/24"))
    host.run("ip", "link", "add", "vxlan.calico", "type", "vxlan", *options.split())
    before = host.run("cat", "/sys/class/net/vxlan.calico/ifindex")
    node = await felix("n1", host, world_of_two(world))
    await node.until(lambda: "10.244.2.0/26 via 10.244.2.0" in host.run("ip", "route"))
    assert (host.run("cat", "/sys/class/net/vxlan.calico/ifindex") != before) == recreated
    found = json.loads(host.run("ip", "-d", "-j", "link", "show", "vxlan.calico"))[0]
    data = found["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data["link"], data["local"], data["learning"], data.get("group")) == (
        4096, 4789, "eth0", "10.9.0.1", False, None,
    )  # fmt: skip
    assert (found["mtu"], found["address"]) == (1450, node.mac)
    assert "dst 10.9.0.2 self permanent" in host.run("bridge", "fdb", "show", "dev", "vxlan.calico")


def world_of_two(world: Any) -> list[Any]:
    return [
        world.node("n1", "10.9.0.1/24", tunnel="10.244.1.0"),
        world.node("n2", "10.9.0.2/24", tunnel="10.244.2.0"),
        world.pool("four", "10.244.0.0/16", vxlan_mode="Always"),
        world.block("n2", "10.244.2.0/26"),
    ]


SETTINGS = {
    "vxlanVNI": (5000, lambda device: device["linkinfo"]["info_data"]["id"] == 5000),
    "vxlanPort": (8472, lambda device: device["linkinfo"]["info_data"]["port"] == 8472),
    "vxlanMTU": (1300, lambda device: device["mtu"] == 1300),
}


@pytest.mark.parametrize("name", SETTINGS)
async def test_settings_change_the_device_live(felix: Any, world: Any, namespaces: Any, name: str) -> None:
    value, holds = SETTINGS[name]
    host, other = namespaces("n1"), namespaces("n2")
    world.uplink(host, other, "eth0", ("10.9.0.1/24", "10.9.0.2/24"))
    node = await felix("n1", host, world_of_two(world))
    await node.configure(**{name: value})

    def whole() -> bool:
        found = json.loads(host.run("ip", "-d", "-j", "link", "show", "vxlan.calico"))[0]
        return (
            holds(found)
            and "10.244.2.0/26 via 10.244.2.0" in host.run("ip", "route")
            and "10.244.2.0 lladdr" in host.run("ip", "neigh", "show", "dev", "vxlan.calico")
            and "dst 10.9.0.2" in host.run("bridge", "fdb", "show", "dev", "vxlan.calico")
            and "10.244.1.0/32" in host.run("ip", "addr", "show", "dev", "vxlan.calico")
        )

    await node.until(whole)
    assert not node.repairs


async def test_checksum_offload_is_left_on_but_for_the_switch(felix: Any, world: Any, namespaces: Any) -> None:
    host, other = namespaces("n1"), namespaces("n2")
    world.uplink(host, other, "eth0", ("10.9.0.1/24", "10.9.0.2/24"))
    node = await felix("n1", host, world_of_two(world))
    offloads = node.offloads()
    assert offloads.get("vxlan.calico")
    await node.configure(featureDetectOverride="ChecksumOffloadBroken=true,SNATFullyRandom=false")
    assert not offloads.get("vxlan.calico")
    await node.configure()
    assert offloads.get("vxlan.calico")
    offloads.close()
