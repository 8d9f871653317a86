"""Address translation of what leaves the cluster, with real packets: who is seen outside, and as whom."""

from __future__ import annotations

import socket
from typing import Any

import pytest

POD, OTHER, OUT, NODE, SECOND, THIRD = "10.244.0.1", "10.245.0.1", "10.9.0.9", "10.9.0.1", "10.9.0.100", "10.8.0.9"
POD6, OTHER6, OUT6, NODE6, SECOND6, THIRD6 = (
    "fd00:10::1", "fd00:11::1", "fd00:9::9", "fd00:9::1", "fd00:9::100", "fd00:8::9",
)  # fmt: skip


@pytest.fixture
async def n1(felix: Any, world: Any, namespaces: Any) -> Any:
    """A pod with natOutgoing and one without, on a node between two outside hosts that know the way back to pods."""
    host, outside, third = namespaces("n1"), namespaces("out"), namespaces("third")
    world.uplink(host, outside, "up0", ("10.9.0.1/24", "10.9.0.9/24"), ("fd00:9::1/64", "fd00:9::9/64"))
    world.uplink(host, third, "up1", ("10.8.0.1/24", "10.8.0.9/24"), ("fd00:8::1/64", "fd00:8::9/64"))
    host.run("ip", "addr", "add", "10.9.0.100/32", "dev", "up0")
    for namespace, gateway, gateway6 in ((outside, "10.9.0.1", "fd00:9::1"), (third, "10.8.0.1", "fd00:8::1")):
        namespace.run("ip", "route", "add", "default", "via", gateway)
        namespace.run("ip", "-6", "route", "add", "default", "via", gateway6)
    node = await felix(
        "n1",
        host,
        [
            world.node("n1", "10.9.0.1/24", "fd00:9::1/64"),
            world.node("out", "10.9.0.9/24", "fd00:9::9/64"),
            world.pool("four", "10.244.0.0/16", nat_outgoing=True),
            world.pool("six", "fd00:10::/64", nat_outgoing=True),
            world.pool("plain", "10.245.0.0/16"),
            world.pool("plain6", "fd00:11::/64"),
        ],
    )
    node.outside, node.third = outside, third
    await node.add("a", POD, POD6)
    await node.add("p", OTHER, OTHER6)
    return node


def where(node: Any, name: str) -> Any:
    return {"a": node.pods["a"].namespace, "p": node.pods["p"].namespace, "out": node.outside, "third": node.third}[
        name
    ]


# settings, from, source address, to, destination address -> as whom the destination sees it
CASES: dict[str, tuple[dict[str, Any], str, str, str, str, str]] = {
    "natOutgoing": ({}, "a", POD, "out", OUT, NODE),
    "natOutgoing, another way out": ({}, "a", POD, "third", THIRD, "10.8.0.1"),
    "natOutgoing, IPv6": ({}, "a", POD6, "third", THIRD6, "fd00:8::1"),
    "a pool without natOutgoing": ({}, "p", OTHER, "out", OUT, OTHER),
    "a pool without natOutgoing, IPv6": ({}, "p", OTHER6, "out", OUT6, OTHER6),
    "to a pool": ({}, "a", POD, "p", OTHER, POD),
    "to a pool, IPv6": ({}, "a", POD6, "p", OTHER6, POD6),
    "to a node, pools only excluded": ({"natOutgoingExclusions": "IPPoolsOnly"}, "a", POD, "out", OUT, NODE),
    "to a node, hosts excluded": ({"natOutgoingExclusions": "IPPoolsAndHostIPs"}, "a", POD, "out", OUT, POD),
    "to a node, hosts excluded, IPv6": ({"natOutgoingExclusions": "IPPoolsAndHostIPs"}, "a", POD6, "out", OUT6, POD6),
    "to an external node": (
        {"natOutgoingExclusions": "IPPoolsAndHostIPs", "externalNodesList": ["10.8.0.0/24"]},
        "a", POD, "third", THIRD, POD),
    "hosts excluded, to another": (
        {"natOutgoingExclusions": "IPPoolsAndHostIPs"}, "a", POD, "third", THIRD, "10.8.0.1"),
    "natOutgoingAddress": ({"natOutgoingAddress": SECOND}, "a", POD, "out", OUT, SECOND),
    "natOutgoingAddress leaves IPv6 masqueraded": ({"natOutgoingAddress": SECOND}, "a", POD6, "out", OUT6, NODE6),
    "interface filter, that interface": ({"iptablesNATOutgoingInterfaceFilter": "up0"}, "a", POD, "out", OUT, NODE),
    "interface filter, another": ({"iptablesNATOutgoingInterfaceFilter": "up0"}, "a", POD, "third", THIRD, POD),
    "interface filter, another, IPv6": (
        {"iptablesNATOutgoingInterfaceFilter": "up0"}, "a", POD6, "third", THIRD6, POD6),
    "interface filter with +": ({"iptablesNATOutgoingInterfaceFilter": "up+"}, "a", POD, "third", THIRD, "10.8.0.1"),
}  # fmt: skip


async def test_as_whom_a_packet_is_seen(n1: Any, wire: Any) -> None:
    for name, (settings, source, address, target, destination, seen) in CASES.items():
        await n1.configure(**settings)
        mouth, ear = wire.mouth(where(n1, source), address), wire.ear(where(n1, target), destination)
        heard = wire.passes(mouth, ear)
        assert heard is not None, name
        assert heard[0] == seen, name
        translated = seen != address
        assert (heard[1] != mouth.getsockname()[1]) == translated, (
            f"{name}: a port chosen at random wherever there is NAT"
        )
        word = wire.word()
        ear.socket.sendto(word, heard)
        mouth.settimeout(2)
        assert mouth.recv(100) == word, f"{name}: the answer comes back to the pod"


def tcp_port(source: Any, address: str, target: Any, destination: str, wire: Any) -> int:
    """The port as which a TCP connection is seen."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with wire.inside(target.fd):
        server = socket.create_server((destination, 0), family=kind)
    with wire.inside(source.fd):
        client = socket.socket(kind, socket.SOCK_STREAM)
    with server, client:
        client.settimeout(2)
        client.bind((address, 0))
        client.connect(server.getsockname()[:2])
        accepted, seen = server.accept()
        accepted.close()
        return int(seen[1])


@pytest.mark.parametrize("address", [None, SECOND])
@pytest.mark.parametrize(("pod", "out"), [(POD, OUT), (POD6, OUT6)])
async def test_nat_port_range(n1: Any, wire: Any, address: str | None, pod: str, out: str) -> None:
    await n1.configure(natPortRange="33000:33003", **({"natOutgoingAddress": address} if address else {}))
    inside, outside = n1.pods["a"].namespace, n1.outside
    as_whom = {POD: address or NODE, POD6: NODE6}[pod]
    for _ in range(4):
        heard = wire.passes(wire.mouth(inside, pod), wire.ear(outside, out))
        assert heard is not None
        assert heard[0] == as_whom
        assert 33000 <= heard[1] <= 33003
        assert 33000 <= tcp_port(inside, pod, outside, out, wire) <= 33003
    assert "1 received" in inside.run("ping", "-c1", "-W2", out), "other protocols have no ports, but NAT"


async def test_a_pool_that_gets_nat_outgoing_and_loses_it_again(n1: Any, world: Any, wire: Any) -> None:
    def seen() -> str:
        return wire.passes(wire.mouth(n1.pods["p"].namespace, OTHER), wire.ear(n1.outside, OUT))[0]

    assert seen() == OTHER
    await n1.put(world.pool("plain", "10.245.0.0/16", nat_outgoing=True))
    assert seen() == NODE
    await n1.put(world.pool("plain", "10.245.0.0/16", nat_outgoing=True, disabled=True))
    assert seen() == NODE, "a disabled pool has pods still"
    await n1.gone("IPPool", "plain")
    assert seen() == OTHER


async def test_what_the_node_itself_sends_is_left_alone(n1: Any, wire: Any) -> None:
    mouth = wire.mouth(n1.host, SECOND)
    assert wire.passes(mouth, wire.ear(n1.outside, OUT)) == (SECOND, mouth.getsockname()[1])
