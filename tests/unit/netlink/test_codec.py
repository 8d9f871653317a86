"""The codec without a kernel: golden bytes of every message, and what is built parses back to the same.

The golden bytes pin what the kernel tests take; pyroute2's decoder reads those of rtnetlink besides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from calipy.netlink import attributes as nla
from calipy.netlink import ctnetlink as ct
from calipy.netlink import nf_tables as nft
from calipy.netlink import rtnetlink as rt
from calipy.netlink.messages import ERROR, Message, Packet, Refusal, numbers, pack, refusal_of, unpack
from tests.effort import examples

MAC = "66:00:00:00:00:02"
FLOW = ct.Flow(
    family=4,
    original=ct.Direction(source="10.0.0.1", destination="10.0.0.2", protocol=17, source_port=1, destination_port=53),
    reply=ct.Direction(source="10.0.0.2", destination="10.0.0.1", protocol=17, source_port=53, destination_port=1),
)
ROUTE4 = rt.Route(
    family=4, destination="10.1.0.0/26", metric=1024, protocol=80, gateway="10.9.0.2", device=3, onlink=True
)
ROUTE6 = rt.Route(family=6, destination="fd00:1::/122", metric=1024, protocol=80, kind="blackhole")
HOPS = (rt.NextHop(gateway="10.9.0.2", device=3), rt.NextHop(gateway="10.9.0.3", device=4, weight=2))
MESSAGES: dict[str, Message] = {
    "put route": rt.put_route(ROUTE4),
    "put route 6": rt.put_route(ROUTE6),
    "put multipath": rt.put_route(rt.Route(family=4, destination="10.2.0.0/16", protocol=12, next_hops=HOPS)),
    "put link route": rt.put_route(
        rt.Route(family=4, destination="10.1.0.1/32", scope=253, device=3, source="10.9.0.1", mtu=1400)
    ),
    "delete route": rt.delete_route(ROUTE4),
    "dump routes": rt.dump_routes(6),
    "add address": rt.add_address(rt.Address(index=3, family=10, address="fd00::1", prefix_length=128)),
    "delete address": rt.delete_address(rt.Address(index=3, family=2, address="10.0.0.1", prefix_length=32)),
    "put neighbour": rt.put_neighbour(rt.Neighbour(index=3, family=2, address="10.0.0.1", mac=MAC, state=128)),
    "put forwarding": rt.put_neighbour(
        rt.Neighbour(index=3, family=7, address="10.9.0.2", mac=MAC, state=128, flags=2)
    ),
    "delete neighbour": rt.delete_neighbour(rt.Neighbour(index=3, family=10, address="fd00::1")),
    "new veth": rt.new_veth("cali1", mac="ee:ee:ee:ee:ee:ee", mtu=1450, peer_name="eth0", peer_namespace=9),
    "new vxlan": rt.new_vxlan("vxlan.calico", vni=4096, port=4789, local="10.9.0.1", device=2, mac=MAC, mtu=1450),
    "new vxlan 6": rt.new_vxlan("vxlan-v6.calico", vni=4096, port=4789, local="fd00::1", device=2, mac=MAC, mtu=1430),
    "set link": rt.set_link(3, up=True, mtu=1400, alias="abc", ipv4_settings={3: 1}, address_generation=1),
    "delete link": rt.delete_link(3),
    "delete group": rt.delete_group(7),
    "get link": rt.get_link("eth0"),
    "delete flows": next(ct.delete_flows("10.0.0.1")),
    "new flow": ct.new_flow(FLOW, 60),
    "dump flows": ct.dump_flows(6),
    "table": nft.table("calipy", nft.OWNER | nft.PERSIST),
    "base chain": nft.chain("calipy", "filter-FORWARD", nft.Hook(number=2, priority=0)),
    "chain": nft.chain("calipy", "cali-fw-cali1"),
    "delete chain": nft.delete_chain("calipy", "cali-fw-cali1"),
    "flush chain": nft.flush_chain("calipy", "cali-fw-cali1"),
    "rule": nft.rule(
        "calipy",
        "filter-FORWARD",
        [
            nft.meta(nft.META_IIFNAME),
            nft.compare(b"cali"),
            nft.ct(nft.CT_STATE),
            nft.bitwise(b"\x06\0\0\0", bytes(4)),
            nft.payload(nft.TRANSPORT_HEADER, 2, 2),
            nft.between(b"\0\1", b"\0\2"),
            nft.lookup("s", negated=True),
            nft.fib(nft.FIB_ADDRESS_TYPE, nft.FIB_SOURCE),
            nft.counter(),
            nft.verdict(nft.GOTO, "cali-fw-cali1"),
        ],
        nft.comment("why"),
    ),
    "nat": nft.rule("calipy", "n", [nft.immediate(b"\x0a\0\0\1"), nft.source_nat(2, 1, 19), nft.masquerade(18, 2, 3)]),
    "ends": nft.rule("calipy", "n", [nft.notrack(), nft.reject(), nft.lookup_verdict("m"), nft.verdict(nft.DROP)]),
    "log": nft.rule("calipy", "n", [nft.limit(5, 60, 7), nft.log("calico-packet: ", 6)]),
    "mark": nft.rule(
        "calipy",
        "n",
        [nft.meta(nft.META_MARK), nft.bitwise(b"\xff\xff\xfd\xff", b"\0\0\2\0"), nft.meta_set(nft.META_MARK)],
    ),
    "set": nft.set_("calipy", "s", id_=1, key_type=7, key_length=4, flags=nft.SET_INTERVAL),
    "map": nft.set_("calipy", "m", id_=2, key_type=41, key_length=16, verdicts=True, user_data=nft.HOST_ORDER_KEY),
    "elements": next(
        nft.elements(
            "calipy",
            "m",
            [
                nft.element(b"cali1".ljust(16, b"\0"), nft.Verdict(nft.GOTO, "cali-fw-cali1")),
                nft.element(b"\x0a\0\0\0"),
                nft.element(b"\x0a\0\1\0", interval_end=True),
            ],
        )
    ),
    "delete set": nft.delete_set("calipy", "s"),
    "delete table": nft.delete_table("calipy"),
}
_FILE = Path(__file__).with_name("golden.txt")
GOLDEN = dict(line.split(": ", 1) for line in _FILE.read_text().splitlines()) if _FILE.exists() else {}


def wire(message: Message) -> bytes:
    return pack([message], 7, acknowledge=True)


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_bytes(name: str) -> None:
    assert wire(MESSAGES[name]).hex() == GOLDEN[name]


def test_every_golden_line_has_its_message() -> None:
    assert list(GOLDEN) == list(MESSAGES)


DECODED: dict[str, tuple[Any, dict[str, Any]]] = {
    "put route": (rtmsg, {"RTA_DST": "10.1.0.0", "RTA_GATEWAY": "10.9.0.2", "RTA_OIF": 3, "RTA_PRIORITY": 1024}),
    "put route 6": (rtmsg, {"RTA_DST": "fd00:1::", "RTA_TABLE": 254, "RTA_PRIORITY": 1024}),
    "put link route": (rtmsg, {"RTA_DST": "10.1.0.1", "RTA_PREFSRC": "10.9.0.1"}),
    "delete route": (rtmsg, {"RTA_DST": "10.1.0.0", "RTA_PRIORITY": 1024}),
    "add address": (ifaddrmsg, {"IFA_ADDRESS": "fd00::1"}),
    "delete address": (ifaddrmsg, {"IFA_LOCAL": "10.0.0.1"}),
    "put neighbour": (ndmsg, {"NDA_DST": "10.0.0.1", "NDA_LLADDR": MAC}),
    "put forwarding": (ndmsg, {"NDA_DST": "10.9.0.2", "NDA_LLADDR": MAC}),
    "new vxlan": (ifinfmsg, {"IFLA_IFNAME": "vxlan.calico", "IFLA_MTU": 1450, "IFLA_ADDRESS": MAC}),
    "set link": (ifinfmsg, {"IFLA_MTU": 1400}),
    "delete group": (ifinfmsg, {"IFLA_GROUP": 7}),
}


@pytest.mark.parametrize("name", DECODED)
def test_pyroute2_reads_it_the_same(name: str) -> None:
    decoder, expected = DECODED[name]
    message = decoder(wire(MESSAGES[name]))
    message.decode()
    assert {key: message.get_attr(key) for key in expected} == expected
    if name == "new vxlan":
        data = message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        wanted = {"IFLA_VXLAN_ID": 4096, "IFLA_VXLAN_LINK": 2, "IFLA_VXLAN_LOCAL": "10.9.0.1", "IFLA_VXLAN_LEARNING": 0}
        assert {key: data.get_attr(key) for key in wanted} == wanted


four, six = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda a: nla.as_address(a.packed))
indices = st.integers(1, 1 << 20)
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
names = st.text("abcdefghijklmnop.-", min_size=1, max_size=15)


def _routes(family: int) -> st.SearchStrategy[rt.Route]:
    addresses = four if family == 4 else six
    hops = st.builds(rt.NextHop, gateway=addresses, device=indices, weight=st.integers(1, 256), onlink=st.booleans())
    one = {"gateway": st.none() | addresses, "device": indices, "onlink": st.booleans()}
    several = {"next_hops": st.lists(hops, min_size=2, max_size=4).map(tuple)}
    common: dict[str, Any] = {
        "family": st.just(family),
        "destination": st.tuples(addresses, st.integers(0, 32 if family == 4 else 128)).map(lambda p: f"{p[0]}/{p[1]}"),
        "table": st.sampled_from([254, 7, 1000]),
        "metric": st.integers(0, (1 << 32) - 1),
        "protocol": st.integers(0, 255),
        "scope": st.sampled_from([0, 253]),
        "source": st.none() | addresses,
        "mtu": st.none() | st.integers(68, 65535),
    }
    return st.builds(rt.Route, **common, **one) | st.builds(rt.Route, **common, **several)


@examples(60)
@given(_routes(4) | _routes(6))
def test_a_route_parses_back(route: rt.Route) -> None:
    assert rt.parse_route(rt.put_route(route).body) == route


@examples(30)
@given(st.builds(rt.Neighbour, index=indices, family=st.just(2), address=four, mac=macs, state=st.integers(0, 255)))
def test_a_neighbour_parses_back(entry: rt.Neighbour) -> None:
    assert rt.parse_neighbour(rt.put_neighbour(entry).body) == entry


@examples(30)
@given(st.one_of(st.tuples(st.just(2), four), st.tuples(st.just(10), six)), indices, st.integers(0, 32))
def test_an_address_parses_back(end: tuple[int, str], index: int, length: int) -> None:
    address = rt.Address(index=index, family=end[0], address=end[1], prefix_length=length)
    assert rt.parse_address(rt.delete_address(address).body) == address


@examples(30)
@given(names, st.integers(1, 1 << 24), st.integers(1, 65535), four | six, indices, macs, st.integers(68, 9000))
def test_a_vxlan_device_parses_back(
    name: str, vni: int, port: int, local: str, device: int, mac: str, mtu: int
) -> None:
    body = rt.new_vxlan(name, vni=vni, port=port, local=local, device=device, mac=mac, mtu=mtu).body
    link = rt.parse_link(body)
    assert (link.name, link.kind, link.mac, link.mtu, link.up) == (name, "vxlan", mac, mtu, True)
    assert link.vxlan == rt.Vxlan(vni=vni, port=port, local=local, device=device)


ports = st.integers(0, 65535)


@examples(30)
@given(st.sampled_from([(4, four), (6, six)]).flatmap(
    lambda pair: st.builds(
        ct.Flow, family=st.just(pair[0]),
        original=st.builds(ct.Direction, source=pair[1], destination=pair[1], protocol=st.integers(0, 255),
                           source_port=ports, destination_port=ports),
        reply=st.builds(ct.Direction, source=pair[1], destination=pair[1], protocol=st.integers(0, 255),
                        source_port=ports, destination_port=ports),
    )))  # fmt: skip
def test_a_flow_parses_back_and_is_found_by_each_of_its_addresses(flow: ct.Flow) -> None:
    body = ct.new_flow(flow, 60).body
    assert ct.parse_flow(body) == flow
    for direction in (flow.original, flow.reply):
        assert ct.mentions(body, direction.source)
        assert ct.mentions(body, direction.destination)
    assert ct.parse_flow(ct.new_flow(flow, 60).body).original == flow.original


@examples(30)
@given(names, st.none() | st.builds(nft.Hook, number=st.integers(0, 4), priority=st.integers(-400, 400)))
def test_a_chain_parses_back(name: str, hook: nft.Hook | None) -> None:
    assert nft.parse_chain(nft.chain("t", name, hook).body) == nft.ChainRecord(
        table="t", name=name, hook=hook, user_data=b""
    )


@examples(30)
@given(names, st.integers(1, 64), st.sampled_from(["", "verdicts", "data"]), st.binary(max_size=16))
def test_a_set_parses_back(name: str, length: int, maps: str, data: bytes) -> None:
    values = (19, 4) if maps == "data" else None
    body = nft.set_(
        "t", name, id_=1, key_type=7, key_length=length, verdicts=maps == "verdicts", data=values, user_data=data
    ).body
    expected = nft.SetRecord(
        table="t", name=name, flags=nft.SET_MAP if maps else 0, key_type=7, key_length=length,
        data_type={"": 0, "verdicts": nft.VERDICT_DATA, "data": 19}[maps], user_data=data,
    )  # fmt: skip
    assert nft.parse_set(body) == expected


verdicts = st.none() | st.builds(nft.Verdict, st.sampled_from([nft.GOTO, nft.JUMP]), names) | st.just(nft.Verdict(0))

keys = st.binary(min_size=4, max_size=16)
records = st.builds(nft.ElementRecord, key=keys, verdict=verdicts) | st.builds(
    nft.ElementRecord, key=keys, value=st.binary(min_size=1, max_size=16)
)


@examples(30)
@given(st.lists(records, max_size=50))
def test_elements_parse_back_in_as_many_messages_as_they_need(records: list[nft.ElementRecord]) -> None:
    encoded = [nft.element(record.key, record.verdict, value=record.value) for record in records] * 40
    found = [e for message in nft.elements("t", "s", encoded) for e in nft.parse_elements(message.body)]
    assert found == records * 40
    assert all(len(message.body) < 65536 for message in nft.elements("t", "s", encoded))


def of_family(family: int, message: Message) -> bytes:
    return bytes((family,)) + message.body[1:]


def test_what_others_have_is_read_with_its_family() -> None:
    """Tables of ip, ip6 and netdev; chains on devices; ranges in concatenations."""
    assert nft.get_chains(nft.IPV6).body[0] == nft.IPV6
    assert nft.get_chains().body[0] == nft.INET
    assert nft.parse_table(of_family(2, nft.table("filter"))).family == nft.IPV4
    assert (
        nft.parse_rule(of_family(10, nft.rule("filter", "c", [nft.verdict(nft.DROP)])) + nla.be64(3, 1)).family
        == nft.IPV6
    )
    assert nft.parse_set(of_family(2, nft.set_("t", "s", id_=1, key_type=7, key_length=4))).family == nft.IPV4
    hook = nla.be32(1, 0) + nla.be32(2, 0)
    names = nla.string(1, "n"), nla.string(3, "i")
    for devices in (nla.string(3, "eth0"), nla.nested(4, nla.string(1, "eth0"), nla.string(1, "cali1"))):
        body = bytes((nft.NETDEV, 0, 0, 0)) + b"".join(names) + nla.nested(4, hook, devices)
        found = nft.parse_chain(body)
        assert (found.family, found.devices[0], found.hook) == (5, "eth0", nft.Hook(number=0, priority=0))
    assert found.devices == ("eth0", "cali1")
    key = nla.nested(1, nla.attribute(1, b"\x0a\0\0\0")) + nla.nested(10, nla.attribute(1, b"\x0a\0\0\xff"))
    body = bytes((1, 0, 0, 0)) + nla.string(1, "t") + nla.string(2, "s") + nla.nested(3, nla.nested(1, key))
    assert [(e.key, e.key_end) for e in nft.parse_elements(body)] == [(b"\x0a\0\0\0", b"\x0a\0\0\xff")]


def test_a_notification_names_its_table() -> None:
    chain = nft.chain("filter", "FORWARD")
    assert nft.table_of(chain.kind, of_family(2, chain)) == (nft.IPV4, "filter")
    assert nft.table_of(chain.kind, chain.body) == (nft.INET, "filter")
    generation = 10 << 8 | 15
    assert nft.table_of(generation, bytes(4) + nla.be32(1, 0x61626300)) is None
    assert nft.table_of(chain.kind, bytes(4)) is None


@st.composite
def like_names(draw: st.DrawFn) -> list[str]:
    """Names of one length."""
    length = draw(st.integers(1, 30))
    return draw(st.lists(st.text("abc.-", min_size=length, max_size=length), min_size=1, max_size=20))


def put(name: str) -> list[Message]:
    why = nft.comment("why it is there")
    return [
        nft.flush_chain("calipy", name),
        nft.rule("calipy", name, [nft.counter(), nft.verdict(nft.GOTO, "cali")]),
        nft.rule("calipy", name, [nft.verdict(nft.DROP)], why),
    ]


@examples(50)
@given(like_names())
def test_a_series_is_the_messages_of_each_object_under_its_number(like: list[str]) -> None:
    series = nft.alike(put(like[0]), "calipy", [name.encode() for name in like])
    table = nft.table("calipy")
    assert numbers([table, series, table]) == len(like) + 2
    found = [(p.kind, p.flags, p.sequence, bytes(p.body)) for p in unpack(pack([table, series, table], 7))]
    one_by_one = [(7, table), *((8 + at, each) for at, name in enumerate(like) for each in put(name))]
    one_by_one.append((8 + len(like), table))
    assert found == [(each.kind, each.flags | 1, number, each.body) for number, each in one_by_one]


@examples(50)
@given(like_names(), st.integers(1, 33), st.booleans(), st.integers(1, 200))
def test_like_elements_are_what_each_of_them_is(like: list[str], size: int, leads: bool, times: int) -> None:
    chains = like * times if leads else []
    keys = [name.encode().ljust(size, b"\0")[:size] for name in like * times]
    verdicts = [nft.Verdict(nft.GOTO, chain) for chain in chains] if leads else [None] * len(keys)
    each = [nft.element(key, verdict) for key, verdict in zip(keys, verdicts, strict=True)]
    pieces = list(nft.elements_alike(each[0], keys, [chain.encode() for chain in chains]))
    assert b"".join(pieces) == b"".join(each)
    assert all(len(message.body) < 65536 for message in nft.elements("t", "s", pieces))


def test_a_refusal_tells_errno_and_the_kernels_words() -> None:
    words = nla.string(1, "Nexthop has invalid gateway")
    body = (-22).to_bytes(4, "little", signed=True) + bytes(16) + words
    packet = Packet(kind=ERROR, flags=0x300, sequence=3, port=0, body=memoryview(body))
    assert refusal_of(packet, 2) == Refusal(2, 22, "Invalid argument: Nexthop has invalid gateway")
    done = Packet(kind=ERROR, flags=0x100, sequence=3, port=0, body=memoryview(bytes(20)))
    assert refusal_of(done, 2) is None


@pytest.mark.parametrize("cut", [1, 15, 17, 20])
def test_what_is_cut_off_is_no_message(cut: int) -> None:
    data = wire(MESSAGES["put route"])
    if cut < 16:
        assert list(unpack(data[:cut])) == []
        return
    with pytest.raises(ValueError, match="netlink message"):
        list(unpack(data[:cut]))


def test_several_messages_come_out_as_they_went_in() -> None:
    data = pack(MESSAGES.values(), 5)
    found = list(unpack(data))
    assert [(p.kind, p.sequence, bytes(p.body)) for p in found] == [
        (message.kind, number, message.body) for number, message in enumerate(MESSAGES.values(), 5)
    ]
