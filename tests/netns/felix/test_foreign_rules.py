"""Packet filters of others on a real kernel: what nft and iptables write is read, and what drops is found and named."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from calipy.agent.node_checks import node_checks
from calipy.netlink.socket import NETFILTER, NetlinkSocket, inside
from calipy.node.check import Finding, judge
from calipy.node.checking import Checks
from calipy.node.rulesets import Ruleset, read
from calipy.node.ways import Pods
from calipy.resources.ip_pools import IPPool
from calipy.resources.nodes import Node

PODS = Pods(
    prefixes=("cali",), nets=("10.244.0.0/16", "fd00:10::/64"), own=("10.9.0.1",), carriers=("eth0",), links={1: "lo"}
)
BASE = "type filter hook forward priority filter + 10;"
ALL, FROM = "from and to pods", "between pods of this node, from pods to pods of other nodes, from pods to outside"
FIREWALLD = """
table inet firewalld {
  chain forward {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 addr-unreachable
    jump zones
    ct state invalid drop
    reject with icmpx admin-prohibited
  }
  chain zones { iifname "eth0" goto public; iifname vmap { "docker0" : goto docker, "cali*" : jump public }; }
  chain docker { accept; }
  chain public { tcp dport 22 accept; meta l4proto { icmp, ipv6-icmp } accept; }
  chain prerouting {
    type filter hook prerouting priority raw + 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
}"""
DOCKER = """
iptables-nft -P FORWARD DROP
iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN
iptables-nft -N DOCKER-1; iptables-nft -A FORWARD -j DOCKER-1; iptables-nft -N DOCKER-2
iptables-nft -A DOCKER-1 -i docker0 ! -o docker0 -j DOCKER-2; iptables-nft -A DOCKER-2 -o docker0 -j DROP
iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables-nft -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
iptables-nft -N KUBE-FORWARD; iptables-nft -A FORWARD -j KUBE-FORWARD
iptables-nft -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
iptables-nft -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"""


def nft(*rules: str, base: str = BASE, more: str = "") -> str:
    lines = (more, "chain c {", base, *rules, "}")
    return written("table inet other {", *lines, "}")


def written(*lines: str) -> str:
    return "\n".join(("nft -f - <<'EOF'", *lines, "EOF"))


# what | how it is made | severity, subject and beginning of the words of each finding
CASES: list[tuple[str, str, Sequence[tuple[str, str, str]]]] = [
    ("nothing", "true", ()),
    (
        "firewalld",
        written(FIREWALLD),
        (
            (
                "error",
                "inet firewalld forward, handle",
                f"drops what goes {ALL} (IPv4 and IPv6), but for what a rule before",
            ),
            ("notice", "inet firewalld forward, handle", "drops some of what goes from pods to outside (IPv6)"),
        ),
    ),
    (
        "docker",
        DOCKER,
        (
            ("error", "ip filter FORWARD, policy", f"drops what goes {ALL} (IPv4)"),
            ("notice", "ip raw PREROUTING, handle", "drops some of what goes from pods to outside (IPv4)"),
        ),
    ),
    (
        "docker, and pods let through",
        f"{DOCKER}\niptables-nft -I FORWARD -i cali+ -j ACCEPT\niptables-nft -I DOCKER-USER -o cali+ -j ACCEPT",
        (("notice", "ip raw PREROUTING", "drops some of"),),
    ),
    (
        "iptables with a comment",
        "iptables-nft -A FORWARD -s 10.244.0.0/16 -m comment --comment 'no pods' -j REJECT",
        (("error", 'ip filter FORWARD, handle 2 ("no pods")', "drops what goes between pods"),),
    ),
    ("iptables, what isn't new", "iptables-nft -A FORWARD -m conntrack ! --ctstate NEW -j DROP", ()),
    (
        "iptables, a match of its own",
        "ip6tables-nft -A FORWARD -m addrtype --dst-type LOCAL -j DROP",
        (("warning", "ip6 filter FORWARD, handle", f"may drop what goes {ALL} (IPv6); it depends on"),),
    ),
    (
        "iptables, ports",
        "iptables-nft -A FORWARD -p tcp -m multiport --dports 1,2 -j DROP",
        (("warning", "ip filter FORWARD, handle", f"drops some of what goes {ALL} (IPv4)"),),
    ),
    (
        "iptables, another wildcard",
        "iptables-nft -A FORWARD -i veth+ -j DROP; iptables-nft -A FORWARD ! -i cali+ ! -o cali+ -j DROP",
        (),
    ),
    (
        "nets of any length",
        nft("ip saddr 10.240.0.0/12 iifname cali* drop", "ip daddr 10.245.0.0/17 iifname docker0 drop"),
        (("error", "inet other c, handle", f"drops what goes {FROM} (IPv4)"),),
    ),
    (
        "a net of IPv6",
        nft("ip6 saddr fd00:10::/60 iifname cali* drop"),
        (("error", "inet other c, handle", f"drops what goes {FROM} (IPv6)"),),
    ),
    (
        "both ends at once",
        nft("ip saddr 10.244.1.1 ip daddr 10.244.1.2 drop", "ip saddr 10.244.1.1 ip daddr 127.0.0.1 drop"),
        (("warning", "inet other c, handle 2", "drops some of what goes between pods of this node,"),),
    ),
    (
        "a range",
        nft("ip saddr 10.0.0.0-10.255.255.255 iifname cali* drop", "ip saddr 10.0.0.1-10.9.255.255 oifname lo drop"),
        (("error", "inet other c, handle", f"drops what goes {FROM} (IPv4)"),),
    ),
    (
        "a named set of nets",
        nft(
            "ip saddr @s iifname cali* drop",
            more="set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/9, 10.128.0.0/9, 192.168.1.1 }; }",
        ),
        (("error", "inet other c, handle", f"drops what goes {FROM} (IPv4)"),),
    ),
    (
        "names in a set",
        nft('iifname { "lo", "docker0" } drop', 'oifname { "eth0", "lo" } drop'),
        (("error", "inet other c, handle", "drops what goes from pods to pods of other nodes, from pods to outside"),),
    ),
    (
        "pairs in a set",
        nft('iifname . oifname { "eth0" . "docker0" } drop', 'oifname . ip daddr { "cali1" . 10.244.0.0/16 } drop'),
        (("warning", "inet other c, handle", "drops some of what goes between pods of this node,"),),
    ),
    (
        "states in a map",
        nft("ct state vmap { invalid : drop, established : accept, new : jump d }", more="chain d { drop; }"),
        (("error", "inet other d, handle", f"drops what goes {ALL} (IPv4 and IPv6); it is reached from c"),),
    ),
    (
        "a map of pairs",
        nft("ip daddr . tcp dport vmap { 10.244.0.1 . 80 : drop, 192.0.2.1 . 80 : drop }"),
        (("warning", "inet other c, handle", "drops some of what goes between pods of this node,"),),
    ),
    ("broadcasts", nft("meta pkttype { broadcast, multicast } drop"), ()),
    ("what lies dormant", nft("drop", more="flags dormant;"), ()),
    (
        "bridges and ARP",
        written(
            "table bridge b { chain c { type filter hook forward priority 0; policy drop; }; }",
            "table arp a { chain c { type filter hook input priority 0; policy drop; }; }",
        ),
        (),
    ),
    (
        "a pod's link",
        "ip link add cali7 type veth peer name x\n"
        + written(
            "table netdev n {",
            "chain i {",
            'type filter hook ingress device "cali7" priority 0;',
            "ip saddr 10.244.0.0/16 drop",
            "}",
            "}",
        ),
        (("error", "netdev n i, handle", f"drops what goes {FROM} (IPv4)"),),
    ),
    (
        "iptables' own tables",
        "iptables-legacy -t filter -L",
        (("warning", "iptables-legacy filter", "its rules are not read"),),
    ),
]


@pytest.mark.parametrize(("command", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_what_nft_and_iptables_write_is_read(
    namespaces: Callable[[str], Any], command: str, expected: Sequence[tuple[str, str, str]]
) -> None:
    host = namespaces("host")
    host.run("sh", "-ec", command)
    found = [each for each in judge(rules_of(host), PODS) if each is not None]
    ranks = ["error", "warning", "notice"]
    found.sort(key=lambda each: ranks.index(each.severity))
    assert len(found) == len(expected), found
    for one, (severity, subject, words) in zip(found, expected, strict=True):
        assert (one.severity, one.subject[: len(subject)], one.words[: len(words)]) == (severity, subject, words)


def rules_of(host: Any) -> Ruleset:
    with NetlinkSocket.open(NETFILTER, namespace=host.fd) as socket, inside(host.fd):
        (rules,) = [each for each in read(socket) if each is not None]
    return rules


class Objects:
    """What the store says of the node."""

    def __init__(self, node: Node, *pools: IPPool) -> None:
        self._node, self._pools = node, pools

    def node(self) -> Node:
        return self._node

    def pools_in_force(self) -> Sequence[IPPool]:
        return self._pools


@pytest.fixture
async def watched(felix: Any, world: Any, namespaces: Any) -> AsyncIterator[tuple[Any, Any, Checks]]:
    """A node with pods a and b and somebody outside, and its checks at work."""
    host, outside = namespaces("n1"), namespaces("out")
    world.uplink(host, outside, "up0", ("10.9.0.1/24", "10.9.0.9/24"), ("fd00:9::1/64", "fd00:9::9/64"))
    outside.run("ip", "route", "add", "default", "via", "10.9.0.1")
    objects = Objects(
        world.node("n1", "10.9.0.1/24"), world.pool("four", "10.244.0.0/16"), world.pool("six", "fd00:10::/64")
    )
    node = await felix("n1", host, [objects.node(), *objects.pools_in_force()])
    await node.add("a", "10.244.0.1", "fd00:10::1")
    await node.add("b", "10.244.0.2", "fd00:10::2")
    checks = node_checks(node.engine, objects, namespace=host.fd, every_s=0.05)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(checks.run())
        await node.until(lambda: checks.looks)
        yield node, outside, checks
        running.cancel()
    checks.close()


async def test_a_foreign_table_that_drops_is_found_named_and_forgotten(
    watched: tuple[Any, Any, Checks], wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node, outside, checks = watched
    mouth, ear = (
        wire.mouth(node.pods["a"].namespace, "10.244.0.1"),
        wire.ear(node.pods["b"].namespace, "10.244.0.2", 53),
    )
    stranger = wire.mouth(outside, "10.9.0.9")
    assert wire.passes(mouth, ear)
    assert wire.passes(stranger, ear)
    assert checks.findings == ()
    node.forget(["10.244.0.1", "10.244.0.2"])
    node.host.run("sh", "-ec", nft('udp dport 53 iifname "up0" drop comment "no names from there"'))
    await node.until(lambda: checks.findings)
    (found,) = checks.findings
    assert (found.severity, found.subject) == ("warning", 'inet other c, handle 2 ("no names from there")')
    assert found.words == (
        "drops some of what goes to pods from pods of other nodes, to pods from outside (IPv4 and IPv6)"
    )
    assert wire.passes(mouth, ear)
    assert wire.dropped(stranger, ear)
    node.host.run("sh", "-ec", found.remedy.removeprefix("accept it before: "))
    await node.until(lambda: not checks.findings)
    assert wire.passes(stranger, ear), "the remedy is one"
    node.host.run("nft", "flush", "table", "inet", "other")
    node.host.run("nft", "add chain inet other c { policy drop; }")
    node.forget(["10.244.0.1", "10.244.0.2"])
    assert wire.dropped(mouth, ear)
    await node.until(lambda: checks.findings)
    (found,) = checks.findings
    assert (found.severity, found.subject) == ("error", "inet other c, policy")
    node.host.run("nft", "delete", "table", "inet", "other")
    await node.until(lambda: not checks.findings)
    assert wire.passes(mouth, ear)
    told = [record.getMessage() for record in caplog.records if record.name == "calipy.node.check"]
    assert [text.split(", ")[0] for text in told] == [
        "inet other c", "no longer so: inet other c", "inet other c", "no longer so: inet other c",
    ]  # fmt: skip


async def test_our_own_changes_lead_to_no_look(watched: tuple[Any, Any, Checks]) -> None:
    node, _, checks = watched
    looks = checks.looks
    await node.add("c", "10.244.0.3")
    await node.delete("c")
    await asyncio.sleep(0.3)
    assert checks.looks == looks


async def test_where_pods_packets_come_and_go(watched: tuple[Any, Any, Checks]) -> None:
    node, _, checks = watched
    pods = checks._pods()
    assert (pods.carriers, pods.prefixes, pods.to_node) == (("up0",), ("cali",), False)
    assert {"10.9.0.1", "fd00:9::1"} <= set(pods.own)
    assert not {"fe80::ecee:eeff:feee:eeee"} & set(pods.own)
    await node.configure(defaultEndpointToHostAction="ACCEPT")
    assert checks._pods().to_node


@pytest.mark.parametrize("count", [3000])
async def test_a_long_table_holds_the_loop_for_no_long_step(watched: tuple[Any, Any, Checks], count: int) -> None:
    node, _, checks = watched
    rules = [f"ip saddr 192.{number >> 8}.{number & 255}.0/24 tcp dport {number} drop" for number in range(1, count)]
    await asyncio.get_running_loop().run_in_executor(None, node.host.run, "sh", "-ec", nft(*rules))
    slowest = 0.0
    async with asyncio.timeout(20):
        while len(checks.findings) < count - 1:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(0)
            slowest = max(slowest, asyncio.get_running_loop().time() - before)
    print(f"{count} rules: longest step {slowest * 1000:.1f} ms")
    assert {finding.severity for finding in checks.findings} == {"notice"}
    assert isinstance(checks.findings[0], Finding)
