"""Pods' links on a real kernel: what they carry, what CHECK sees, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec import structs

from calipy.cni.deletions import AT_ONCE
from calipy.cni.differences import first_difference
from calipy.cni.errors import CniError
from calipy.cni.wires import Wires
from calipy.cni.wiring import LOOPBACK, Wiring
from calipy.netlink import rtnetlink as rt
from calipy.netlink.messages import Overrun
from calipy.netlink.socket import ROUTE, NetlinkSocket, inside

V4, V6 = "10.123.0.7", "fd00:7b::7"
PLAN = Wiring(
    interface="cali123", pod_interface="eth0", container_id="c1", mtu=1420, addresses=(V4, V6), queues=2,
    pod_mac="02:00:00:00:00:07",
)  # fmt: skip


class Node:
    """A node that is a network namespace: links are made in it."""

    def __init__(self, namespace) -> None:
        self.namespace = namespace
        self.loop = asyncio.Runner()
        with inside(namespace.fd):
            self.wires = Wires(Path("/proc/sys/net"))
            self.routes = NetlinkSocket.open(ROUTE)

    def within(self, work: Callable[[], Awaitable[object]]):
        """Runs a coroutine with this thread in the node's namespace: /proc/sys/net is the caller's."""
        with inside(self.namespace.fd):
            return self.loop.run(work())

    def connect(self, plan: Wiring, pod) -> object:
        return self.within(lambda: self.wires.connect(plan, pod.fd))

    def route(self, plan: Wiring) -> int:
        """What Felix does: the host routes. The link's index."""
        index = self.wires.find(plan.interface).index
        wanted = [
            rt.Route(
                family=6 if ":" in address else 4,
                destination=f"{address}/{128 if ':' in address else 32}",
                device=index,
                scope=rt.SCOPE_UNIVERSE if ":" in address else rt.SCOPE_LINK,
                protocol=80,
                metric=1024,
            )
            for address in plan.addresses
        ]
        assert self.routes.request([rt.put_route(route) for route in wanted]) == ()
        return index

    def difference(self, plan: Wiring, pod, mac: str = "") -> str:
        with inside(self.namespace.fd):
            return first_difference(plan, self.wires.observe(plan, pod.fd), mac)

    def close(self) -> None:
        self.wires.close()
        self.routes.close()
        self.loop.close()


@pytest.fixture
def node(namespaces):
    made = Node(namespaces("node"))
    # Nothing but loopback, no default route: the kernel answers no ARP for 169.254.1.1 here.
    made.namespace.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    made.namespace.run("ip", "address", "add", "fd00:99::1/128", "dev", "lo")
    assert made.namespace.run("ip", "route", "show", "default") == ""
    yield made
    made.close()


@pytest.fixture
def pod(namespaces):
    return namespaces("pod")


def pings(namespace, address: str) -> bool:
    out = namespace.run("ping", "-c1", "-W2", address, check=False)
    return " 0% packet loss" in out


@pytest.mark.parametrize("addresses", [(V4,), (V6,), (V4, V6)])
def test_packets_pass_without_a_default_route(node, pod, addresses):
    plan = structs.replace(PLAN, addresses=addresses)
    connected = node.connect(plan, pod)
    assert connected.mac == "02:00:00:00:00:07"
    node.route(plan)
    for address in addresses:
        assert pings(node.namespace, address)
        assert pings(pod, "fd00:99::1" if ":" in address else "10.99.0.1")
    assert node.difference(plan, pod, connected.mac) == ""


LINUX = tuple(map(int, os.uname().release.split(".")[:2]))


@pytest.mark.skipif(LINUX < (6, 8), reason="before Linux 6.8 the link watch comes when it comes, some 50 us later")
def test_a_pods_first_packet_passes_however_soon_it_comes(node, namespaces):
    """A link that comes up without a carrier drops what it should send until the kernel looks at it again."""
    plans, pods = many(namespaces, 10)
    with inside(node.namespace.fd):
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("10.99.0.1", 0))
    listener.settimeout(5)
    for plan, pod in zip(plans, pods, strict=True):
        with inside(pod.fd):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            node.connect(plan, pod)
            sender.sendto(plan.container_id.encode(), listener.getsockname())
            assert listener.recv(100) == plan.container_id.encode()
    listener.close()


def test_two_pods_reach_each_other(node, pod, namespaces):
    other = namespaces("other")
    second = Wiring(
        interface="cali124", pod_interface="eth0", container_id="c2", mtu=1420, addresses=("10.123.0.8", "fd00:7b::8")
    )
    node.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for plan, where in ((PLAN, pod), (second, other)):
        node.connect(plan, where)
        node.route(plan)
    assert pings(pod, "10.123.0.8")
    assert pings(pod, "fd00:7b::8")
    assert pings(other, V4)
    assert pings(other, V6)


def test_the_pods_view(node, pod):
    node.connect(PLAN, pod)
    assert pod.run("ip", "-4", "route").splitlines() == [
        "default via 169.254.1.1 dev eth0 ",
        "169.254.1.1 dev eth0 scope link ",
    ]
    assert "default via fe80::ecee:eeff:feee:eeee dev eth0" in pod.run("ip", "-6", "route")
    assert "169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT" in pod.run("ip", "neighbour")
    assert "tentative" not in pod.run("ip", "-6", "address")
    assert "mtu 1420" in pod.run("ip", "link", "show", "eth0")
    assert "LOOPBACK,UP" in pod.run("ip", "link", "show", "lo")
    host = node.namespace.run("ip", "-d", "address", "show", "cali123")
    assert "alias c1" in host
    assert "numtxqueues 2" in host
    assert "ee:ee:ee:ee:ee:ee" in host
    assert host.count("inet6 fe80::ecee:eeff:feee:eeee/128") == host.count("inet6 ") == 1
    assert "tentative" not in host


def test_forwarding_pods(node, pod):
    node.connect(structs.replace(PLAN, forwarding=True), pod)
    assert pod.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding").split() == ["1", "1"]


def test_a_container_with_ipv6_off(node, pod):
    pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    node.connect(PLAN, pod)
    node.route(PLAN)
    assert pings(pod, "fd00:99::1")


DIFFERENCES = [
    ("node", "ip link set cali123 alias other", "cali123: alias is 'other'"),
    ("node", "ip link set cali123 mtu 1400", "cali123: MTU is 1400"),
    ("node", "ip link set cali123 address 02:00:00:00:00:99", "cali123: MAC address"),
    ("node", "ip link set cali123 down", "cali123: up is False"),
    ("node", "ip link delete cali123", "link cali123 is gone"),
    ("node", "sysctl -qw net.ipv4.conf.cali123.proxy_arp=0", "net.ipv4.conf.cali123.proxy_arp is 0"),
    ("node", "sysctl -qw net.ipv4.conf.cali123.route_localnet=0", "net.ipv4.conf.cali123.route_localnet is 0"),
    ("node", "sysctl -qw net.ipv4.neigh.cali123.proxy_delay=80", "net.ipv4.neigh.cali123.proxy_delay is 80"),
    ("node", "sysctl -qw net.ipv6.conf.cali123.proxy_ndp=0", "net.ipv6.conf.cali123.proxy_ndp is 0"),
    ("node", "sysctl -qw net.ipv6.conf.cali123.accept_ra=2", "net.ipv6.conf.cali123.accept_ra is 2"),
    ("node", f"ip route delete {V4}", f"route {V4}/32 dev cali123 is missing on the node"),
    ("node", f"ip -6 route delete {V6}", f"route {V6}/128 dev cali123 is missing on the node"),
    ("node", f"ip route replace blackhole {V4} metric 1", f"route {V4}/32 dev cali123 is missing on the node"),
    ("pod", "ip link set eth0 mtu 1400", "eth0: MTU is 1400"),
    ("pod", "ip link set eth0 name net7", "link eth0 is gone"),
    ("pod", "ip link set eth0 address 02:00:00:00:00:99", "eth0: MAC address"),
    ("pod", f"ip address delete {V4}/32 dev eth0", f"address {V4}/32 is missing"),
    ("pod", f"ip address delete {V6}/128 dev eth0", f"address {V6}/128 is missing"),
    ("pod", "ip route delete default", "route 0.0.0.0/0 via 169.254.1.1 dev eth0 is missing"),
    ("pod", "ip -6 route delete default", "route ::/0 via fe80::ecee:eeff:feee:eeee dev eth0 is missing"),
    ("pod", "ip neighbour delete 169.254.1.1 dev eth0", "neighbour 169.254.1.1 is"),
    ("pod", "ip neighbour replace 169.254.1.1 dev eth0 lladdr 02:00:00:00:00:01", "is 02:00:00:00:00:01"),
    ("pod", "ip neighbour delete fe80::ecee:eeff:feee:eeee dev eth0", "neighbour fe80::ecee:eeff:feee:eeee is"),
    ("pod", "sysctl -qw net.ipv4.ip_forward=1", "net.ipv4.ip_forward is 1"),
    ("pod", "sysctl -qw net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.eth0.accept_dad is 1"),
]


def test_each_difference_is_found(node, pod):
    for where, command, words in DIFFERENCES:
        connected = node.connect(PLAN, pod)
        index = node.route(PLAN)
        assert node.difference(PLAN, pod, connected.mac) == ""
        (node.namespace if where == "node" else pod).run(*command.split())
        assert words in node.difference(PLAN, pod, connected.mac), command
        node.within(lambda index=index: node.wires.remove(index))
        node.namespace.run("ip", "route", "flush", "proto", "boot")
        pod.run("sysctl", "-qw", "net.ipv4.ip_forward=0")


def test_the_host_knows_its_pod_without_asking(node, pod):
    node.connect(PLAN, pod)
    known = node.namespace.run("ip", "neigh", "show", "dev", "cali123", "nud", "permanent")
    assert sorted(map(str.strip, known.splitlines())) == [
        f"{address} lladdr 02:00:00:00:00:07 PERMANENT" for address in (V4, V6)
    ]


def test_an_interface_that_is_there_already(node, pod):
    pod.run("ip", "link", "add", "eth0", "type", "bridge")
    with pytest.raises(CniError, match=r"link cali123, its other end eth0 in the container: can't be made.*exists"):
        node.connect(PLAN, pod)
    assert node.wires.find("cali123") is None


def test_a_failure_half_way_leaves_nothing(node, pod):
    bad = structs.replace(PLAN, addresses=(V4, "ff02::99", V6))
    with pytest.raises(CniError, match="eth0 in the container: the kernel says") as caught:
        node.connect(bad, pod)
    assert caught.value.code == 102
    assert node.wires.find("cali123") is None
    assert "eth0" not in pod.run("ip", "link")


def test_a_setting_that_cannot_be_written(namespaces, pod, tmp_path):
    node = Node(namespaces("bare"))
    try:
        with inside(node.namespace.fd):
            node.wires.close()
            node.wires = Wires(tmp_path)
        with pytest.raises(CniError, match="proxy_delay: No such file"):
            node.connect(PLAN, pod)
        assert node.wires.find("cali123") is None
    finally:
        node.close()


def many(namespaces, count: int):
    plans = [
        structs.replace(PLAN, interface=f"cali{n}", container_id=f"c{n}", addresses=(f"10.123.1.{n}",), pod_mac="")
        for n in range(count)
    ]
    return plans, [namespaces(f"many{n}") for n in range(count)]


def test_twenty_at_once_and_gone_together(node, namespaces):
    plans, pods = many(namespaces, 20)
    deletions = node.wires._deletions

    async def life():
        made = await asyncio.gather(*map(node.wires.connect, plans, (pod.fd for pod in pods)))
        assert len({entry.mac for entry in made}) == 20
        await asyncio.gather(*(node.wires.remove(entry.index) for entry in made))

    node.within(life)
    assert deletions.requests_sent == 2  # a group is made, and deleted
    assert node.namespace.run("ip", "-br", "link").split()[0] == "lo"
    assert len(node.namespace.run("ip", "-br", "link").splitlines()) == 1
    assert all("eth0" not in pod.run("ip", "link") for pod in pods)


def test_who_removes_a_link_does_not_wait_for_those_before(node, namespaces):
    plans, pods = many(namespaces, AT_ONCE + 6)
    deletions, order = node.wires._deletions, []

    async def remove(index: int) -> None:
        await node.wires.remove(index)
        order.append(index)

    async def life():
        made = [(await node.wires.connect(plan, pod.fd)).index for plan, pod in zip(plans, pods, strict=True)]
        async with asyncio.TaskGroup() as group:
            for index in made:
                group.create_task(remove(index))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        return made

    made = node.within(life)
    assert sorted(order) == made
    assert deletions.requests_sent == AT_ONCE + 2  # those for whom there was no thread went together
    assert len(node.namespace.run("ip", "-br", "link").splitlines()) == 1


def test_a_removed_link_is_gone_before_its_request_returns(node, pod):
    """The kernel takes two grace periods more, and nobody has to wait for them: its name is free at once."""
    index = node.connect(PLAN, pod).index
    found = []

    async def again():
        await node.wires.remove(index)
        found.append(
            (node.wires.find(PLAN.interface), "eth0" in pod.run("ip", "link"), len(node.wires._deletions._free))
        )
        return await node.wires.connect(PLAN, pod.fd)

    assert node.within(again).index != index
    assert found[0] == (None, False, AT_ONCE - 1)  # the request is still under way


def test_a_link_that_was_not_told_of_is_gone_when_its_request_returns(node, pod, monkeypatch):
    monkeypatch.setattr(NetlinkSocket, "receive", overrun)
    index = node.connect(PLAN, pod).index
    node.within(lambda: node.wires.remove(index))
    assert node.wires.find(PLAN.interface) is None
    assert not node.wires._deletions._leaving


def overrun(socket: NetlinkSocket) -> None:
    raise Overrun


def test_a_link_that_the_kernel_does_not_delete_is_named(node, pod):
    with pytest.raises(CniError, match="links can't be deleted: Operation not supported") as caught:
        node.within(lambda: node.wires.remove(LOOPBACK))
    assert caught.value.code == 102
    index = node.connect(PLAN, pod).index
    node.within(lambda: node.wires.remove(index))


def test_who_waits_for_a_link_may_go(node, pod):
    index = node.connect(PLAN, pod).index

    async def twice():
        async with asyncio.TaskGroup() as group:
            first, second = (group.create_task(node.wires.remove(index)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
        assert (first.cancelled(), second.done()) == (True, True)

    node.within(twice)
    assert node.wires.find(PLAN.interface) is None


def test_what_is_gone_can_be_removed(node, pod):
    node.connect(PLAN, pod)
    index = node.wires.find("cali123").index

    async def thrice():
        await asyncio.gather(*(node.wires.remove(which) for which in (index, index, index + 1000, index + 1001)))
        await node.wires.remove(index)

    node.within(thrice)
    assert node.wires.find("cali123") is None


def test_other_links_stay_when_a_group_goes(node, namespaces):
    node.namespace.run("ip", "link", "add", "keep0", "type", "bridge")
    made = [
        node.connect(structs.replace(PLAN, interface=f"cali{n}", addresses=(f"10.123.1.{n}",)), namespaces(f"some{n}"))
        for n in range(3)
    ]

    async def remove():
        await asyncio.gather(*(node.wires.remove(entry.index) for entry in made[:2]))

    node.within(remove)
    assert node.wires.find("cali2") is not None
    assert node.wires.find("keep0") is not None


def test_which_namespaces_are_containers(node, pod):
    with inside(node.namespace.fd):
        assert node.wires.judge(pod.fd, "x") == pod.fd
        for descriptor in (None, node.namespace.fd, os.open("/etc/hostname", os.O_RDONLY | os.O_CLOEXEC)):
            with pytest.raises(CniError, match="CNI_NETNS is '/some/where'") as caught:
                node.wires.judge(descriptor, "/some/where")
            assert caught.value.code == 4
    os.close(descriptor)


def test_a_container_that_dies_takes_its_link(node, namespaces):
    doomed = Wiring(interface="cali9", pod_interface="eth0", container_id="c9", mtu=1420, addresses=("10.123.9.9",))
    process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec cat"], stdin=-1, stdout=-1)
    assert process.stdout.readline() == b"ready\n"
    descriptor = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    index = node.within(lambda: node.wires.connect(doomed, descriptor)).index
    os.close(descriptor)
    process.communicate()
    node.within(lambda: node.wires.remove(index))
    assert node.wires.find("cali9") is None
