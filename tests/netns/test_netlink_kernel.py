"""The codec against the kernel: what is written is read back the same, by us and by ip and nft."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable

import pytest

from calipy.felix.drivers.conntrack import Conntrack, filter_works
from calipy.netlink import ctnetlink, nf_tables, rtnetlink
from calipy.netlink.messages import Message
from calipy.netlink.rtnetlink import AF_BRIDGE, AF_INET, AF_INET6, Address, Neighbour, NextHop, Route
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket, inside, scratch

Make = Callable[[str], "object"]


@pytest.fixture
def host(namespaces):  # type: ignore[no-untyped-def]
    return namespaces("host")


@pytest.fixture
def route(host):  # type: ignore[no-untyped-def]
    with NetlinkSocket.open(ROUTE, namespace=host.fd) as opened:
        yield opened


def dump(opened: NetlinkSocket, message: Message, parse):  # type: ignore[no-untyped-def]
    return [parse(body) for body in opened.dump(message)]


def veth(opened: NetlinkSocket, name: str, pod_fd: int) -> rtnetlink.Link:
    made = rtnetlink.new_veth(name, mac="ee:ee:ee:ee:ee:ee", mtu=1450, peer_name="eth0", peer_namespace=pod_fd)
    assert opened.request([made]) == ()
    index = rtnetlink.parse_link(opened.get(rtnetlink.get_link(name))).index
    assert opened.request([rtnetlink.set_link(index, alias="abc")]) == ()
    return rtnetlink.parse_link(opened.get(rtnetlink.get_link(name)))


def test_a_veth_pair_is_made_where_its_ends_belong(host, route, namespaces) -> None:  # type: ignore[no-untyped-def]
    pod = namespaces("pod")
    link = veth(route, "cali1", pod.fd)
    assert (link.name, link.kind, link.mac, link.mtu, link.alias, link.up) == (
        "cali1", "veth", "ee:ee:ee:ee:ee:ee", 1450, "abc", True,
    )  # fmt: skip
    assert "eth0" in pod.run("ip", "-o", "link")
    settings = {rtnetlink.IPV4_PROXY_ARP: 1, rtnetlink.IPV4_FORWARDING: 1}
    assert route.request([rtnetlink.set_link(link.index, ipv4_settings=settings)]) == ()
    assert host.run("cat", "/proc/sys/net/ipv4/conf/cali1/proxy_arp").strip() == "1"
    assert route.request([rtnetlink.set_link(link.index, group=7)]) == ()
    assert route.request([rtnetlink.delete_group(7)]) == ()
    assert "cali1" not in host.run("ip", "-o", "link")


@pytest.mark.parametrize("family", [4, 6])
def test_a_table_that_has_never_had_a_route_is_empty(family: int) -> None:
    with scratch(), NetlinkSocket.open(ROUTE) as opened:
        assert opened.dump(rtnetlink.dump_routes(family)) == []


def test_a_refusal_names_the_message_and_the_reason(route) -> None:  # type: ignore[no-untyped-def]
    good = Route(family=4, destination="10.1.0.0/26", protocol=80, kind="blackhole")
    bad = Route(family=4, destination="10.2.0.0/26", gateway="192.0.2.1", device=1)
    (refusal,) = route.request([rtnetlink.put_route(good), rtnetlink.put_route(bad), rtnetlink.put_route(good)])
    assert (refusal.index, refusal.errno) == (1, errno.ENETUNREACH)
    assert "Nexthop has invalid gateway" in refusal.text


ROUTES = [
    Route(family=4, destination="10.1.0.0/26", protocol=80, metric=1024, kind="blackhole"),
    Route(family=4, destination="10.1.1.5/32", protocol=80, metric=1024, scope=253, device=0),
    Route(family=4, destination="10.1.2.0/26", protocol=80, metric=1024, gateway="10.9.9.9", device=0, onlink=True),
    Route(family=4, destination="10.1.3.0/26", protocol=12, metric=1024, next_hops=(
        NextHop(gateway="10.9.9.9", device=0, onlink=True), NextHop(gateway="10.9.9.10", device=0, onlink=True))),
    Route(
        family=4, destination="10.1.4.0/26", protocol=80, metric=7, gateway="10.9.9.9", device=0, onlink=True, mtu=1400
    ),
    Route(family=6, destination="fd00:1::/122", protocol=80, metric=1024, kind="blackhole"),
    Route(family=6, destination="fd00:1::5/128", protocol=80, metric=1024, device=0),
    Route(family=6, destination="fd00:2::/122", protocol=12, metric=1024, gateway="fd00:9::9", device=0, onlink=True),
]  # fmt: skip


@pytest.mark.parametrize("wanted", ROUTES, ids=lambda r: f"{r.destination}-{r.kind}-{len(r.next_hops)}")
def test_a_route_comes_back_as_it_was_asked_for(route, namespaces, wanted: Route) -> None:  # type: ignore[no-untyped-def]
    import msgspec

    link = veth(route, "cali1", namespaces("pod").fd)
    if wanted.device == 0:
        wanted = msgspec.structs.replace(wanted, device=link.index)
    if wanted.next_hops:
        hops = tuple(msgspec.structs.replace(hop, device=link.index) for hop in wanted.next_hops)
        wanted = msgspec.structs.replace(wanted, next_hops=hops)
    assert route.request([rtnetlink.put_route(wanted), rtnetlink.put_route(wanted)]) == ()
    found = [r for r in dump(route, rtnetlink.dump_routes(wanted.family), rtnetlink.parse_route)]
    (mine,) = [r for r in found if r.destination == wanted.destination]
    if wanted.kind == "blackhole":
        mine = msgspec.structs.replace(mine, device=None)
    assert mine == wanted
    other = Route(family=wanted.family, destination=wanted.destination, metric=wanted.metric, protocol=3)
    assert [r.errno for r in route.request([rtnetlink.delete_route(other)])] == [errno.ESRCH]
    assert route.request([rtnetlink.delete_route(wanted)]) == ()


def test_a_vxlan_device_and_its_entries(host, route, namespaces) -> None:  # type: ignore[no-untyped-def]
    parent = veth(route, "up0", namespaces("pod").fd)
    assert route.request([rtnetlink.add_address(
        Address(index=parent.index, family=AF_INET, address="10.9.0.1", prefix_length=24))]) == ()  # fmt: skip
    made = rtnetlink.new_vxlan(
        "vxlan.calico", vni=4096, port=4789, local="10.9.0.1", device=parent.index, mac="66:00:00:00:00:01", mtu=1400
    )
    assert route.request([made]) == ()
    link = rtnetlink.parse_link(route.get(rtnetlink.get_link("vxlan.calico")))
    assert link.vxlan == rtnetlink.Vxlan(vni=4096, port=4789, local="10.9.0.1", device=parent.index)
    assert (link.mac, link.mtu, link.up) == ("66:00:00:00:00:01", 1400, True)
    mac = "66:00:00:00:00:02"
    entries = [
        Neighbour(index=link.index, family=AF_INET, address="10.1.0.1", mac=mac, state=rtnetlink.NUD_PERMANENT),
        Neighbour(index=link.index, family=AF_INET6, address="fd00::1", mac=mac, state=rtnetlink.NUD_PERMANENT),
        Neighbour(index=link.index, family=AF_BRIDGE, address="10.9.0.2", mac=mac, state=rtnetlink.NUD_PERMANENT,
                  flags=rtnetlink.NTF_SELF),
    ]  # fmt: skip
    assert route.request([rtnetlink.put_neighbour(entry) for entry in entries]) == ()
    for entry in entries:
        found = dump(route, rtnetlink.dump_neighbours(entry.family), rtnetlink.parse_neighbour)
        assert entry in found
    assert route.request([rtnetlink.delete_neighbour(entry) for entry in entries]) == ()


def test_nf_tables_takes_all_of_a_batch_or_nothing(host) -> None:  # type: ignore[no-untyped-def]
    with NetlinkSocket.open(NETFILTER, namespace=host.fd) as nft:
        rule = [
            nf_tables.meta(nf_tables.META_IIFNAME),
            nf_tables.lookup_verdict("dispatch"),
            nf_tables.counter(),
            nf_tables.verdict(nf_tables.DROP),
        ]
        good = [
            nf_tables.table("t", nf_tables.OWNER | nf_tables.PERSIST),
            nf_tables.chain("t", "base", nf_tables.Hook(number=2, priority=-5)),
            nf_tables.chain("t", "one"),
            nf_tables.set_("t", "dispatch", id_=1, key_type=41, key_length=16, verdicts=True,
                           user_data=nf_tables.HOST_ORDER_KEY),
            *nf_tables.elements("t", "dispatch", [nf_tables.element(b"cali1".ljust(16, b"\0"),
                                                                    nf_tables.Verdict(nf_tables.GOTO, "one"))]),
            nf_tables.rule("t", "base", rule, nf_tables.comment("static unknown")),
        ]  # fmt: skip
        bad = [*good, nf_tables.rule("t", "missing", [nf_tables.verdict(nf_tables.DROP)])]
        refusals = nft.batch(nf_tables.batch(bad))
        assert [(r.index, r.errno) for r in refusals] == [(len(bad), errno.ENOENT)]
        assert "table" not in host.run("nft", "list", "ruleset")
        assert nft.batch(nf_tables.batch(good)) == ()
        listed = host.run("nft", "list", "table", "inet", "t")
        assert 'iifname vmap @dispatch counter packets 0 bytes 0 drop comment "static unknown"' in listed
        assert '"cali1" : goto one' in listed
        (record,) = [r for r in dump(nft, nf_tables.get_rules("t"), nf_tables.parse_rule)]
        assert nf_tables.parse_comment(record.user_data) == "static unknown"
        assert [e.name for e in record.expressions] == ["meta", "lookup", "counter", "immediate"]
        (chain,) = [c for c in dump(nft, nf_tables.get_chains(), nf_tables.parse_chain) if c.hook]
        assert chain.hook == nf_tables.Hook(number=2, priority=-5)
        (element,) = [e for body in nft.dump(nf_tables.get_elements("t", "dispatch"))
                      for e in nf_tables.parse_elements(body)]  # fmt: skip
        assert element.verdict == nf_tables.Verdict(nf_tables.GOTO, "one")
        with NetlinkSocket.open(NETFILTER, namespace=host.fd) as other:
            (refusal,) = other.batch(nf_tables.batch([nf_tables.chain("t", "two")]))
            assert refusal.errno == errno.EPERM
        generation = nf_tables.parse_generation(nft.get(nf_tables.get_generation()))
        assert nft.batch(nf_tables.batch([nf_tables.chain("t", "three")], generation)) == ()
        (stale,) = nft.batch(nf_tables.batch([nf_tables.chain("t", "four")], generation))
        assert (stale.index, stale.errno) == (-1, 85)
        json.loads(host.run("nft", "-j", "list", "ruleset"))


def test_of_a_series_the_kernel_names_those_that_it_refuses(host) -> None:  # type: ignore[no-untyped-def]
    there, asked = [b"a1", b"a3"], [b"a1", b"a2", b"a3", b"a4"]
    drop = nf_tables.rule("t", "a1", [nf_tables.verdict(nf_tables.DROP)])
    with NetlinkSocket.open(NETFILTER, namespace=host.fd) as nft:
        chains = nf_tables.alike([nf_tables.chain("t", "a1")], "t", there)
        made = [nf_tables.table("t"), chains]
        refusals = nft.batch(nf_tables.batch([*made, nf_tables.alike([drop, drop], "t", asked)]))
        assert {(refusal.index, refusal.errno) for refusal in refusals} == {(5, errno.ENOENT), (7, errno.ENOENT)}
        assert nft.batch(nf_tables.batch([*made, nf_tables.alike([drop, drop], "t", there)])) == ()
        rules = [r.chain for r in dump(nft, nf_tables.get_rules("t"), nf_tables.parse_rule)]
        assert rules == ["a1", "a1", "a3", "a3"]


CLIENT, POD, SERVICE, OTHER = 1, 2, 3, 4
# Who opens the flow to whom, and who answers as whom: a pod as either end, before and after translation.
FLOWS = {
    "from the pod": (POD, OTHER, OTHER, POD),
    "to the pod": (CLIENT, POD, POD, CLIENT),
    "to a service that leads to the pod": (CLIENT, SERVICE, POD, CLIENT),
    "from the pod, masqueraded": (POD, OTHER, OTHER, SERVICE),
    "of others": (CLIENT, OTHER, OTHER, CLIENT),
    "of others, translated": (CLIENT, SERVICE, OTHER, SERVICE),
}


@pytest.mark.parametrize(
    "how",
    [{"few": 2000}, {"few": 0, "filtered": lambda: True}, {"few": 0, "filtered": lambda: False}],
    ids=["few flows", "the kernel finds them", "we find them"],
)
@pytest.mark.parametrize("family", [4, 6])
def test_the_flows_of_an_address_are_forgotten(host, family: int, how) -> None:  # type: ignore[no-untyped-def]
    def address(number: int) -> str:
        return f"10.7.0.{number}" if family == 4 else f"fd00:7::{number}"

    def flow(name: str, port: int) -> ctnetlink.Flow:
        source, target, answerer, answered = map(address, FLOWS[name])
        return ctnetlink.Flow(
            family=family,
            original=ctnetlink.Direction(
                source=source, destination=target, protocol=17, source_port=port, destination_port=53),
            reply=ctnetlink.Direction(
                source=answerer, destination=answered, protocol=17, source_port=53, destination_port=port),
        )  # fmt: skip

    with NetlinkSocket.open(NETFILTER, namespace=host.fd) as netfilter:
        for port, name in enumerate(FLOWS, 1000):
            assert netfilter.request([ctnetlink.new_flow(flow(name, port), 60)]) == (), name
        before = dump(netfilter, ctnetlink.dump_flows(family), ctnetlink.parse_flow)
        assert {f.original for f in before} == {flow(name, port).original for port, name in enumerate(FLOWS, 1000)}
        with inside(host.fd):
            Conntrack(netfilter, **how).flush([address(POD)])
        left = dump(netfilter, ctnetlink.dump_flows(family), ctnetlink.parse_flow)
        ports = dict(zip(FLOWS, range(1000, 2000), strict=False))
        assert sorted(f.original.source_port for f in left) == [ports["of others"], ports["of others, translated"]]
        with inside(host.fd):
            Conntrack(netfilter, **how).flush([address(POD)])


def test_the_kernels_filter_is_tried_elsewhere(host) -> None:  # type: ignore[no-untyped-def]
    own = os.readlink("/proc/thread-self/ns/net")
    assert filter_works() is True
    assert os.readlink("/proc/thread-self/ns/net") == own


FOUND = {"few": 2000}, {"few": 0, "filtered": lambda: True}, {"few": 0, "filtered": lambda: False}


@pytest.mark.parametrize("how", FOUND, ids=["few flows", "the kernel finds them", "we find them"])
@pytest.mark.parametrize("family", [4, 6])
def test_the_flows_that_an_address_opens_or_answers_are_found_marked_and_forgotten(host, family: int, how) -> None:  # type: ignore[no-untyped-def]
    def address(number: int) -> str:
        return f"10.7.0.{number}" if family == 4 else f"fd00:7::{number}"

    def flow(name: str, port: int, protocol: int) -> ctnetlink.Flow:
        source, target, answerer, answered = map(address, FLOWS[name])
        ends = {"protocol": protocol, "source_port": port, "destination_port": 53}
        back = {"protocol": protocol, "source_port": 53, "destination_port": port}
        return ctnetlink.Flow(
            family=family,
            original=ctnetlink.Direction(source=source, destination=target, **ends),
            reply=ctnetlink.Direction(source=answerer, destination=answered, **back),
        )

    def held() -> dict[int, ctnetlink.Flow]:
        flows = dump(netfilter, ctnetlink.dump_flows(family), ctnetlink.parse_flow)
        return {found.original.source_port: found for found in flows}

    with NetlinkSocket.open(NETFILTER, namespace=host.fd) as netfilter:
        for port, name in enumerate(FLOWS, 1000):
            assert netfilter.request([ctnetlink.new_flow(flow(name, port, 17), 60)]) == (), name
        assert netfilter.request([ctnetlink.new_flow(flow("to the pod", 2000, 132), 60)]) == ()
        mine = {1000, 1001, 1002, 1003, 2000}
        conntrack = Conntrack(netfilter, **how)
        with inside(host.fd):
            found = {bytes(body) for part in conntrack.of([address(POD)]) for body in part}
        assert {ctnetlink.parse_flow(body).original.source_port for body in found} == mine
        assert conntrack.mark(list(found), 0x10000, 1800) == 5
        assert {port for port, each in held().items() if each.mark == 0x10000} == mine
        assert conntrack.mark(list(found), 0x20000, 1800) == 0, "it has marked them since they were dumped"
        (one,) = (body for body in map(bytes, netfilter.dump(ctnetlink.dump_flows(family)))
                  if ctnetlink.parse_flow(body).original.source_port == 1001)  # fmt: skip
        assert conntrack.mark([one], 0x20000, 60) == 1
        assert held()[1001].mark == 0x30000
        assert conntrack.forget([one]) == 1
        assert conntrack.forget([one]) == conntrack.mark([one], 1, 60) == 0
        # The kernel tells two flows of the same ends apart by where it keeps them: others take that place first.
        for port in (*range(3000, 3100), 1001):
            assert netfilter.request([ctnetlink.new_flow(flow("to the pod", port, 17), 60)]) == ()
        assert conntrack.forget([one]) == 0, "another that has taken its place"
        assert held().keys() >= mine


def test_the_type_of_a_ping_is_told(network) -> None:  # type: ignore[no-untyped-def]
    _, router, there = network
    for target in ("10.77.2.2", "fd00:77:2::2"):
        router.run("nft", "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; };")
        router.run("ping", "-c1", "-W2", target)
    with NetlinkSocket.open(NETFILTER, namespace=router.fd) as netfilter:
        found = dump(netfilter, ctnetlink.dump_flows(0), ctnetlink.parse_flow)
    types = {(f.original.protocol, f.original.icmp_type) for f in found if f.original.protocol in (1, 58)}
    assert {(1, 8), (58, 128)} <= types
