"""Settings of the node below /proc/sys/net: set, kept, and left alone where Felix is told so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

from calipy.felix.drivers.sysctls import SysctlsDriver
from calipy.felix.objects import ObjectName, Owner, Put
from calipy.felix.plans import Sysctl
from calipy.netlink.socket import ROUTE, NetlinkSocket, inside

WANTED = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "netfilter/nf_conntrack_acct")


def values(host: Any) -> list[str]:
    return [host.run("cat", f"/proc/sys/net/{path}").strip() for path in WANTED]


async def test_a_node_forwards_and_counts_and_a_restart_writes_nothing(felix: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    host.run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=0")
    assert values(host) == ["0", "0", "0"]
    first = await felix("n1", host)
    assert values(host) == ["1", "1", "1"]
    first.stop()
    again = await felix("n1", host)
    assert again.counters()["sysctls"] == (1, 0)


async def test_forwarding_that_somebody_turns_off_comes_back(felix: Any) -> None:
    node = await felix("n1")
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        before = node.repaired["sysctls"]
        node.host.run("sysctl", "-qw", f"{name}=0")
        await node.until(lambda before=before: node.repaired["sysctls"] > before, seconds=1)
        assert values(node.host) == ["1", "1", "1"]


async def test_what_tells_nobody_is_found_at_the_next_refresh(felix: Any) -> None:
    node = await felix("n1")
    node.host.run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=0")
    node.engine.dataplane.notice("sysctls", "refresh")
    await node.until(lambda: node.repaired["sysctls"] == 1, seconds=1)
    assert values(node.host) == ["1", "1", "1"]


async def test_ip_forwarding_disabled_leaves_what_the_administrator_has(felix: Any) -> None:
    node = await felix("n1")
    await node.configure(ipForwarding="Disabled")
    assert values(node.host) == ["1", "1", "1"], "what is on is not turned off"
    node.host.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    node.engine.dataplane.notice("sysctls", "refresh")
    await node.settled()
    assert values(node.host) == ["0", "0", "1"]
    assert not node.repairs
    await node.configure(ipForwarding="Enabled")
    assert values(node.host) == ["1", "1", "1"]


def advertise(router: Any) -> None:
    """A router advertisement (RFC 4861 4.2) without options: lifetime 1800 s."""
    with inside(router.fd), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex("eth0")
        raw.sendto(struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))


async def test_an_advertised_default_route_outlives_forwarding(felix: Any, namespaces: Any) -> None:
    host, router = namespaces("n1"), namespaces("router")
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", router.name)
    for namespace, link in ((host, "up0"), (router, "eth0")):
        namespace.run("sysctl", "-qw", f"net.ipv6.conf.{link}.accept_dad=0")
        namespace.run("ip", "link", "set", link, "up")
    for _ in range(50):
        with contextlib.suppress(OSError):  # until the router's link has its address
            advertise(router)
        if "proto ra" in host.run("ip", "-6", "route", "show", "default"):
            break
        await asyncio.sleep(0.05)
    await felix("n1", host)
    assert "proto ra" in host.run("ip", "-6", "route", "show", "default")
    assert host.run("cat", "/proc/sys/net/ipv6/conf/up0/accept_ra").strip() == "2"
    assert host.run("cat", "/proc/sys/net/ipv6/conf/lo/accept_ra").strip() == "1"
    assert values(host) == ["1", "1", "1"]


async def test_a_setting_that_cannot_be_written_says_which_and_why(namespaces: Any, tmp_path: Path) -> None:
    host = namespaces("n1")
    (tmp_path / "ipv4/ip_forward").mkdir(parents=True)
    with NetlinkSocket.open(ROUTE, namespace=host.fd) as route:
        driver = SysctlsDriver(route, tmp_path, host.fd)
        puts = [
            Put(Owner("sysctl", path), ObjectName("sysctl", path), Sysctl(value="1", optional=path != WANTED[0]))
            for path in WANTED
        ]
        outcome = driver.apply(tuple(puts))
    (refusal,) = outcome.refusals
    assert refusal.name.name == "ipv4/ip_forward"
    assert refusal.reason == f"{tmp_path}/ipv4/ip_forward: Is a directory"
