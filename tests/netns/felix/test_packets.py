"""What packets pass the node's rules and what don't, with real packets: the part that no policy can loosen."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

A, B, UNKNOWN, OUT, HOST = "10.244.0.1", "10.244.0.2", "10.244.0.3", "10.9.0.9", "10.9.0.1"
A6, B6, OUT6, HOST6 = "fd00:10::1", "fd00:10::2", "fd00:9::9", "fd00:9::1"
FAMILIES = {4: (A, B, OUT, HOST), 6: (A6, B6, OUT6, HOST6)}


@pytest.fixture
async def n1(felix: Any, world: Any, namespaces: Any) -> Any:
    """Pods a and b, an outside host with a way back, both families."""
    host, outside = namespaces("n1"), namespaces("out")
    world.uplink(host, outside, "up0", ("10.9.0.1/24", "10.9.0.9/24"), ("fd00:9::1/64", "fd00:9::9/64"))
    outside.run("ip", "route", "add", "10.244.0.0/16", "via", HOST)
    outside.run("ip", "-6", "route", "add", "fd00:10::/64", "via", HOST6)
    node = await felix("n1", host)
    node.outside = outside
    await node.add("a", A, A6)
    await node.add("b", B, B6)
    return node


@pytest.mark.parametrize("family", [4, 6])
async def test_pods_talk_to_each_other_and_to_the_outside_but_not_to_the_host(n1: Any, wire: Any, family: int) -> None:
    a, b, out, host = FAMILIES[family]
    pod = n1.pods["a"].namespace
    mouth = wire.mouth(pod, a)
    assert wire.passes(mouth, wire.ear(n1.pods["b"].namespace, b)) == (a, mouth.getsockname()[1])
    assert wire.passes(mouth, wire.ear(n1.outside, out))
    assert wire.passes(wire.mouth(n1.outside, out), wire.ear(pod, a)), "no policy yet: anybody may come in"
    at_host = wire.ear(n1.host, host)
    assert wire.dropped(mouth, at_host)
    from_host = wire.mouth(n1.host, host)
    there = wire.ear(pod, a)
    assert wire.passes(from_host, there), "the host to its own pod"
    word = wire.word()
    there.socket.sendto(word, from_host.getsockname()[:2])
    from_host.settimeout(2)
    assert from_host.recv(100) == word, "and the answer"


async def test_neighbours_are_found_whatever_else_a_pod_may_not_tell_its_host(n1: Any, wire: Any) -> None:
    pod = n1.pods["a"].namespace
    assert wire.dropped(wire.mouth(pod, A6), wire.ear(n1.host, HOST6))
    n1.host.run("ip", "-6", "neigh", "flush", "dev", "calia")
    pod.run("ip", "-6", "neigh", "flush", "dev", "eth0")
    assert wire.passes(wire.mouth(n1.host, HOST6), wire.ear(pod, A6))
    assert "lladdr" in n1.host.run("ip", "-6", "neigh", "show", A6, "dev", "calia")


@pytest.mark.parametrize(("action", "passes"), [("Drop", False), ("Accept", True), ("Return", True)])
@pytest.mark.parametrize("family", [4, 6])
async def test_default_endpoint_to_host_action(n1: Any, wire: Any, action: str, passes: bool, family: int) -> None:
    a, _, _, host = FAMILIES[family]
    await n1.configure(defaultEndpointToHostAction=action)
    mouth, ear = wire.mouth(n1.pods["a"].namespace, a), wire.ear(n1.host, host)
    assert wire.passes(mouth, ear) if passes else wire.dropped(mouth, ear)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_pod_has_no_address_but_its_own(n1: Any, wire: Any, family: int) -> None:
    a, b, out, host = FAMILIES[family]
    stolen = "10.244.0.77" if family == 4 else "fd00:10::77"
    pod = n1.pods["a"].namespace
    pod.run("ip", "addr", "add", f"{stolen}/{32 if family == 4 else 128}", "dev", "eth0", *(["nodad"] * (family == 6)))
    await n1.configure(defaultEndpointToHostAction="Accept")
    spoofer, honest = wire.mouth(pod, stolen), wire.mouth(pod, a)
    for namespace, address in ((n1.pods["b"].namespace, b), (n1.outside, out), (n1.host, host)):
        ear = wire.ear(namespace, address)
        assert wire.passes(honest, ear)
        assert wire.dropped(spoofer, ear), address


async def test_a_pod_of_one_family_sends_nothing_of_the_other(n1: Any, wire: Any) -> None:
    await n1.add("c", "10.244.0.5")
    pod = n1.pods["c"].namespace
    pod.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0", "net.ipv6.conf.eth0.accept_dad=0")
    pod.run("ip", "addr", "add", "fd00:10::5/128", "dev", "eth0", "nodad")
    n1.host.run("sysctl", "-qw", "net.ipv6.conf.calic.disable_ipv6=0", "net.ipv6.conf.calic.forwarding=1")
    n1.host.run("ip", "addr", "add", "fe80::ecee:eeff:feee:eeee/64", "dev", "calic", "nodad")
    pod.run("ip", "-6", "route", "add", "default", "via", "fe80::ecee:eeff:feee:eeee", "dev", "eth0")
    assert wire.passes(wire.mouth(n1.pods["a"].namespace, A6), wire.ear(n1.outside, OUT6))
    assert wire.dropped(wire.mouth(pod, "fd00:10::5"), wire.ear(n1.outside, OUT6))


async def test_an_interface_that_nobody_knows_is_cut_off_both_ways(n1: Any, wire: Any) -> None:
    await n1.configure(removeExternalRoutes=False, defaultEndpointToHostAction="Accept")
    pod = n1.plug(n1.endpoint("u", UNKNOWN)).namespace
    n1.host.run("ip", "route", "add", UNKNOWN, "dev", "caliu")
    assert wire.passes(wire.mouth(n1.host, HOST), wire.ear(pod, UNKNOWN)), "the way is there"
    mouth, ear = wire.mouth(pod, UNKNOWN), wire.ear(pod, UNKNOWN)
    assert wire.dropped(mouth, wire.ear(n1.pods["a"].namespace, A))
    assert wire.dropped(mouth, wire.ear(n1.outside, OUT))
    assert wire.dropped(mouth, wire.ear(n1.host, HOST))
    assert wire.dropped(wire.mouth(n1.pods["a"].namespace, A), ear)
    assert wire.dropped(wire.mouth(n1.outside, OUT), ear)


def echo_reply(identifier: int) -> bytes:
    """An ICMP echo reply (RFC 792) that nobody asked for: conntrack finds it invalid."""
    body = struct.pack(">BBHHH", 0, 0, 0, identifier, 1)
    low, high = sum(struct.unpack(">4H", body)) & 0xFFFF, sum(struct.unpack(">4H", body)) >> 16
    return struct.pack(">BBHHH", 0, 0, ~(low + high) & 0xFFFF, identifier, 1)


async def test_invalid_packets_are_dropped_unless_the_check_is_off(n1: Any, wire: Any) -> None:
    mouth, ear = (
        wire.raw(n1.pods["a"].namespace, socket.IPPROTO_ICMP),
        wire.raw(n1.pods["b"].namespace, socket.IPPROTO_ICMP),
    )
    assert wire.passes(wire.mouth(n1.pods["a"].namespace, A), wire.ear(n1.pods["b"].namespace, B))
    ear.settimeout(wire.NEVER_S)
    mouth.sendto(echo_reply(1), (B, 0))
    with pytest.raises(TimeoutError):
        ear.recv(100)
    await n1.configure(disableConntrackInvalidCheck=True)
    ear.settimeout(2)
    mouth.sendto(echo_reply(2), (B, 0))
    assert ear.recv(100)[-8:] == echo_reply(2)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_pod_makes_no_vxlan_unless_it_may(n1: Any, wire: Any, family: int) -> None:
    a, b, out, _ = FAMILIES[family]
    mouth = wire.mouth(n1.pods["a"].namespace, a)
    inside, outside = wire.ear(n1.pods["b"].namespace, b, 4789), wire.ear(n1.outside, out, 4789)
    assert wire.passes(mouth, wire.ear(n1.outside, out, 4790))
    assert wire.dropped(mouth, outside)
    assert wire.dropped(mouth, inside)
    await n1.configure(vxlanPort=4790)
    assert wire.passes(mouth, outside), "another port is VXLAN's now"
    await n1.configure(allowVXLANPacketsFromWorkloads=True)
    assert wire.passes(mouth, outside)
    assert wire.passes(mouth, inside)


async def test_a_pod_makes_no_ipip_unless_it_may(n1: Any, wire: Any) -> None:
    mouth, ear = wire.raw(n1.pods["a"].namespace, 4), wire.raw(n1.outside, 4)
    assert wire.passes(wire.mouth(n1.pods["a"].namespace, A), wire.ear(n1.outside, OUT))
    ear.settimeout(wire.NEVER_S)
    mouth.sendto(b"encapsulated", (OUT, 0))
    with pytest.raises(TimeoutError):
        ear.recv(100)
    await n1.configure(allowIPIPPacketsFromWorkloads=True)
    ear.settimeout(2)
    mouth.sendto(b"encapsulated", (OUT, 0))
    assert ear.recv(100).endswith(b"encapsulated")


async def test_reject_is_told(n1: Any, wire: Any) -> None:
    await n1.configure(nftablesFilterDenyAction="Reject")
    mouth = wire.mouth(n1.pods["a"].namespace, A)
    mouth.connect((HOST, 9))
    mouth.settimeout(2)
    mouth.send(b"knock")
    with pytest.raises(ConnectionRefusedError):
        mouth.recv(100)


def vxlan_frame(mac: str, source: str, target: str, port: int, word: bytes) -> bytes:
    """RFC 7348: header with VNI 4096, then an Ethernet frame with a UDP datagram without checksum."""
    udp = struct.pack(">HHHH", 7, port, 8 + len(word), 0) + word
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack(">10H", ip))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = ip[:10] + struct.pack(">H", check) + ip[12:]
    ethernet = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("660000000001") + b"\x08\x00"
    return struct.pack(">II", 0x08000000, 4096 << 8) + ethernet + ip + udp


async def test_vxlan_comes_from_nodes_alone(n1: Any, world: Any, wire: Any) -> None:
    me = world.node("n1", "10.9.0.1/24", tunnel="10.244.0.0")
    await n1.put(me, world.node("n2", "10.9.0.2/24", tunnel="10.244.1.0"))
    await n1.put(world.pool("four", "10.244.0.0/16", vxlan_mode="Always"), world.block("n2", "10.244.1.0/26"))
    await n1.until(lambda: "10.244.1.0/26 via" in n1.host.run("ip", "route"))
    n1.outside.run("ip", "addr", "add", "10.9.0.2/24", "dev", "eth0")
    ear = wire.ear(n1.pods["a"].namespace, A)
    mac = me.metadata.annotations["projectcalico.org/VXLANTunnelMACAddr"]
    tunnels = {name: wire.mouth(n1.outside, address) for name, address in (("n2", "10.9.0.2"), ("stranger", OUT))}

    def arrives(name: str, within_s: float) -> bool:
        word = wire.word()
        tunnels[name].sendto(vxlan_frame(mac, "10.244.1.7", A, ear.port, word), (HOST, 4789))
        return ear.hears(word, within_s) == ("10.244.1.7", 7)

    assert arrives("n2", 2)
    assert not arrives("stranger", wire.NEVER_S)
    await n1.gone("Node", "n2")
    assert not arrives("n2", wire.NEVER_S), "no node any more"


async def test_before_the_first_sync_only_what_is_established_passes(n1: Any, felix: Any, wire: Any) -> None:
    pods = {name: pod.namespace for name, pod in n1.pods.items()}
    a, out = wire.ear(pods["a"], A), wire.ear(n1.outside, OUT)
    assert wire.passes(a.socket, out)
    assert wire.passes(out.socket, a), "an answer: from here on it is established"
    n1.stop()
    n1.host.run("nft", "delete", "table", "inet", "calipy")
    engine = n1.successor()
    await engine.guard()
    assert wire.passes(a.socket, out)
    assert wire.passes(out.socket, a)
    assert wire.dropped(wire.mouth(pods["a"], A), wire.ear(pods["b"], B))
    assert wire.dropped(wire.mouth(pods["a"], A), wire.ear(n1.outside, OUT))
    assert wire.dropped(wire.mouth(n1.outside, OUT), wire.ear(pods["b"], B))
    assert wire.dropped(wire.mouth(pods["a"], A), wire.ear(n1.host, HOST))
    assert wire.dropped(wire.mouth(pods["a"], A6), wire.ear(n1.outside, OUT6))
    from_host, there = wire.mouth(n1.host, HOST), wire.ear(pods["a"], A)
    assert wire.passes(from_host, there), "a kubelet's probe"
    there.socket.sendto(b"alive", from_host.getsockname())
    from_host.settimeout(2)
    assert from_host.recv(10) == b"alive"
    pods["a"].run("ip", "-6", "neigh", "flush", "dev", "eth0")
    assert wire.passes(wire.mouth(n1.host, HOST6), wire.ear(pods["a"], A6)), "neighbours are found"
    engine.close()


async def test_a_table_of_ours_is_left_as_it_is_until_in_sync(n1: Any, wire: Any) -> None:
    listed = n1.host.run("nft", "-s", "list", "table", "inet", "calipy")
    n1.stop()
    engine = n1.successor()
    await engine.guard()
    assert n1.host.run("nft", "-s", "list", "table", "inet", "calipy") == listed
    assert wire.passes(wire.mouth(n1.pods["a"].namespace, A), wire.ear(n1.pods["b"].namespace, B))
    engine.close()


async def test_an_open_flow_outlives_what_comes_after_it(n1: Any, wire: Any) -> None:
    """Established first: a flow that was let through once isn't judged again."""
    a, out = wire.ear(n1.pods["a"].namespace, A, 4790), wire.ear(n1.outside, OUT, 4790)
    assert wire.passes(a.socket, out)
    assert wire.passes(out.socket, a)
    await n1.configure(vxlanPort=4790)
    assert wire.passes(a.socket, out)
    assert wire.dropped(wire.mouth(n1.pods["a"].namespace, A), out)
