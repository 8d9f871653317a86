"""The rules of a node and of an endpoint as text, setting by setting. rules.txt holds what is expected: each paragraph
is a case, each line a rule as `nft` would say it, with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.felix.calc.change import NodeState, SetKey
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dialects.text import chain_text
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import endpoints, statics
from calipy.felix.rules.values import (
    Accept,
    Chain,
    ClearMark,
    ConnectionState,
    Dispatch,
    Drop,
    Element,
    Goto,
    Interface,
    Jump,
    Masquerade,
    OwnSource,
    Reject,
    Return,
    SourceNat,
)
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import PolicyId, TierBinding
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS, SetKind
from calipy.model.tunnels import Tunnel

EXPECTED = Path(__file__).with_name("rules.txt")
TUNNEL4 = Tunnel(
    name="vxlan.calico", family=4, vni=4096, port=4789, local="10.9.0.1", parent="eth0", mac="66:00:00:00:00:01",
    mtu=1450, address="10.244.0.0",
)  # fmt: skip
TUNNEL6 = replace(TUNNEL4, name="vxlan-v6.calico", family=6, local="fd00:9::1", mtu=1430, address="fd00:10::")
NP, GNP = PolicyId("np", "default", "a"), PolicyId("gnp", "", "b")
FIRST = TierBinding(tier="security", default_action="deny", ingress=(GNP,), egress=(GNP,), passing=(GNP,))
DENIES = TierBinding(tier="default", default_action="deny", ingress=(NP, GNP), egress=())
PASSES = TierBinding(tier="baseline", default_action="pass", ingress=(NP,), egress=(NP,), passing=())
MIXED = TierBinding(tier="mixed", default_action="pass", ingress=(NP, GNP), egress=(NP,), passing=(GNP,))
WEB = WorkloadEndpoint(
    id=EndpointId("k8s", "default/web", "eth0"), container_id="c", interface="cali1",
    addresses=("10.244.0.1", "fd00:10::1"),
)  # fmt: skip


def state(settings: FelixSettings, *tunnels: Tunnel) -> NodeState:
    kinds: dict[SetKey, SetKind] = {}
    for family in (4, 6) if settings.ipv6_support else (4,):
        for id_ in (NETWORK_IP_POOLS, MASQUERADED_IP_POOLS):
            kinds[SetKey(id_, family)] = "prefixes"
        for id_ in (ALL_HOSTS, VXLAN_HOSTS):
            kinds[SetKey(id_, family)] = "addresses"
    return NodeState(
        settings=settings,
        sets=kinds,
        members={key: frozenset() for key in kinds},
        tunnels={tunnel.name: tunnel for tunnel in tunnels},
    )


def static(*tunnels: Tunnel, **settings: Any) -> Objects:
    return statics.compile(state(FelixSettings(**settings), *tunnels))


def endpoint(value: WorkloadEndpoint = WEB, **settings: Any) -> Objects:
    return endpoints.compile(value, FelixSettings(**settings))


FROM_AND_TO = ("cali-fw-cali1", "cali-tw-cali1")
# case -> objects, and the chains that it is about
CASES: Mapping[str, tuple[Objects, tuple[str, ...]]] = {
    "a node": (static(), (
        "filter-FORWARD-from-workload", "filter-FORWARD", "filter-INPUT-from-workload", "filter-INPUT",
        "cali-wl-to-host", "cali-from-wl-dispatch", "cali-to-wl-dispatch", "cali-nat-outgoing", "nat-POSTROUTING",
        "raw-PREROUTING", "raw-OUTPUT")),
    "two interface prefixes": (static(interface_prefixes=("cali", "tap")), (
        "filter-FORWARD-from-workload", "filter-FORWARD", "filter-INPUT-from-workload", "filter-INPUT")),
    "the endpoint's host: Accept": (static(default_endpoint_to_host_action="ACCEPT"), ("filter-INPUT",)),
    "the endpoint's host: Return": (static(default_endpoint_to_host_action="RETURN"), ("filter-INPUT",)),
    "denied packets are rejected": (static(TUNNEL4, filter_deny_action="REJECT"), (
        "filter-INPUT", "cali-from-wl-dispatch", "cali-to-wl-dispatch")),
    "VXLAN": (static(TUNNEL4, TUNNEL6), ("filter-INPUT", "nat-POSTROUTING", "raw-PREROUTING", "raw-OUTPUT")),
    "no IPv6": (static(TUNNEL4, ipv6_support=False), ("cali-nat-outgoing", "raw-PREROUTING")),
    "NAT excludes hosts": (static(nat_outgoing_exclusions="IPPoolsAndHostIPs"), ("cali-nat-outgoing",)),
    "NAT by one interface": (static(nat_outgoing_interface_filter="eth0"), ("cali-nat-outgoing",)),
    "NAT by some interfaces": (static(nat_outgoing_interface_filter="eth+"), ("cali-nat-outgoing",)),
    "NAT to an address": (static(nat_outgoing_address="192.0.2.1"), ("cali-nat-outgoing",)),
    "NAT with a port range": (static(nat_port_range=(33000, 33003)), ("cali-nat-outgoing",)),
    "NAT to an address with a port range": (
        static(nat_outgoing_address="192.0.2.1", nat_port_range=(33000, 33003)), ("cali-nat-outgoing",)),
    "not in sync yet": (statics.skeleton(FelixSettings(interface_prefixes=("cali", "tap"))), (
        "filter-FORWARD", "filter-INPUT")),
    "an endpoint": (endpoint(), FROM_AND_TO),
    "an endpoint with profiles": (endpoint(replace(WEB, profiles=("kns.default", "more"))), FROM_AND_TO),
    "a tier that denies": (endpoint(replace(WEB, tiers=(DENIES,), profiles=("kns.default",))), FROM_AND_TO),
    "a tier that passes what it doesn't decide": (
        endpoint(replace(WEB, tiers=(PASSES,), profiles=("kns.default",)), filter_deny_action="REJECT"), FROM_AND_TO),
    "a tier with a policy that passes": (
        endpoint(replace(WEB, tiers=(FIRST, DENIES), profiles=("kns.default",))),
        (*FROM_AND_TO, "cali-fw-cali1-0", "cali-tw-cali1-0")),
    "a tier that passes, with a policy that passes": (
        endpoint(replace(WEB, tiers=(PASSES, MIXED)), nftables_mark_mask=0x0F), (*FROM_AND_TO, "cali-tw-cali1-1")),
    "no check for invalid": (
        static(disable_conntrack_invalid_check=True), ("cali-from-wl-dispatch", "cali-to-wl-dispatch")),
    "workloads may encapsulate": (
        static(allow_vxlan_from_workloads=True, allow_ipip_from_workloads=True), ("cali-from-wl-dispatch",)),
    "another VXLAN port": (static(vxlan_port=8472), ("cali-from-wl-dispatch",)),
    "a refused endpoint": (endpoints.closed(WEB), FROM_AND_TO),
}  # fmt: skip


def text(name: str) -> str:
    objects, chains = CASES[name]
    found = []
    for chain in chains:
        value = objects[ObjectName("chain", chain)]
        assert isinstance(value, Chain)
        found.append(chain_text(chain, value))
    return f"== {name}\n" + "\n".join(found) + "\n"


def expected() -> dict[str, str]:
    parts = EXPECTED.read_text().split("== ")[1:]
    return {part.partition("\n")[0]: f"== {part}".rstrip() + "\n" for part in parts}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str) -> None:
    assert text(name) == expected()[name]


def test_every_case_is_there() -> None:
    assert list(expected()) == list(CASES)


@pytest.mark.parametrize(
    "addresses",
    [("10.244.0.1",), ("fd00:10::1",), ("10.244.0.1", "fd00:10::1"), ("10.244.0.1", "10.244.0.2", "fd00:10::1")],
)
def test_an_endpoint_is_dispatched_to_by_its_interface_and_sends_by_its_addresses(addresses: tuple[str, ...]) -> None:
    found = endpoint(replace(WEB, addresses=addresses))
    elements = {name.name: value.verdict for name, value in found.items() if isinstance(value, Element)}
    sources = {4: "cali40-workload-sources", 6: "cali60-workload-sources"}
    assert elements == {
        "cali-from-wl-dispatch-map cali1": Goto("cali-fw-cali1"),
        "cali-to-wl-dispatch-map cali1": Goto("cali-tw-cali1"),
        **{f"{sources[6 if ':' in address else 4]} cali1 {address}": None for address in addresses},
    }


def test_a_closed_endpoint_may_send_by_no_address() -> None:
    elements = [name.name.partition(" ")[0] for name in endpoints.closed(WEB) if name.kind == "element"]
    assert elements == ["cali-from-wl-dispatch-map", "cali-to-wl-dispatch-map"]


def test_spoofed_packets_are_dropped_before_anything_else() -> None:
    """Of each interface prefix and family, and before connection tracking could take them for an established flow."""
    objects = static(TUNNEL4, interface_prefixes=("cali", "tap"))
    chain = objects[ObjectName("chain", "raw-PREROUTING")]
    assert isinstance(chain, Chain)
    assert chain.hook is not None
    assert chain.hook.priority < -200, "connection tracking is at -200"
    assert [(*rule.matches[1:], rule.action) for rule in chain.rules[:4]] == [
        (
            Interface("in", prefix, prefix=True),
            OwnSource(f"cali{family}0-workload-sources", family, negated=True),
            Drop(),
        )
        for prefix in ("cali", "tap")
        for family in (4, 6)
    ]


def all_objects() -> list[tuple[str, Objects]]:
    return [(name, objects) for name, (objects, _) in CASES.items()]


@pytest.mark.parametrize(("name", "objects"), all_objects(), ids=[name for name, _ in all_objects()])
def test_established_is_first_in_every_filter_of_the_nodes_own(name: str, objects: Objects) -> None:
    for found, value in objects.items():
        if isinstance(value, Chain) and value.hook is not None and value.hook.hook in ("forward", "input"):
            first = value.rules[0]
            assert first.matches == (ConnectionState(("established", "related")),), f"{name}: {found}"
            assert first.action == Accept()


@pytest.mark.parametrize(("name", "objects"), all_objects(), ids=[name for name, _ in all_objects()])
def test_no_chain_accepts_what_it_does_not_judge(name: str, objects: Objects) -> None:
    """An accept is for established flows, neighbour discovery, VXLAN from nodes and what a setting says, no more."""
    for value in objects.values():
        for rule in value.rules if isinstance(value, Chain) else ():
            if rule.action == Accept():
                assert str(rule.origin) in (
                    "static established",
                    "static neighbour discovery",
                    "static VXLAN from a node",
                    "setting defaultEndpointToHostAction",
                )


def reachable(objects: Objects, chain: str) -> set[str]:
    """A chain and all that it leads to, maps left aside."""
    value = objects[ObjectName("chain", chain)]
    assert isinstance(value, Chain)
    targets = {rule.action.chain for rule in value.rules if isinstance(rule.action, Jump | Goto)}
    return {chain}.union(*(reachable(objects, target) for target in targets))


@pytest.mark.parametrize("hook", ["forward", "input"])
def test_each_side_has_a_base_chain_of_its_own_and_the_senders_comes_first(hook: str) -> None:
    """An accept ends one base chain and the next goes on. A chain of one side that led into the other's would be walked
    by the kernel once for each way into it."""
    objects = static(TUNNEL4)
    chains = {
        value.hook.priority: reachable(objects, name.name)
        for name, value in objects.items()
        if isinstance(value, Chain) and value.hook is not None and value.hook.hook == hook
    }
    assert sorted(chains) == [-1, 0]
    assert "cali-from-wl-dispatch" in chains[-1]
    assert "cali-from-wl-dispatch" not in chains[0]
    assert ("cali-to-wl-dispatch" in chains[0]) == (hook == "forward")
    assert "cali-to-wl-dispatch" not in chains[-1]


def test_dispatch_ends_with_a_drop() -> None:
    for action, deny in (("DROP", Drop()), ("REJECT", Reject())):
        objects = static(filter_deny_action=action)
        for dispatch in ("cali-from-wl-dispatch", "cali-to-wl-dispatch"):
            chain = objects[ObjectName("chain", dispatch)]
            assert isinstance(chain, Chain)
            assert (chain.rules[-1].matches, chain.rules[-1].action) == ((), deny)


def test_a_closed_endpoint_lets_nothing_through() -> None:
    for value in endpoints.closed(WEB).values():
        if isinstance(value, Chain):
            assert [(rule.matches, rule.action) for rule in value.rules] == [((), Drop())]


def test_nat_touches_what_leaves_by_an_interface_only_there() -> None:
    objects = static(nat_outgoing_interface_filter="eth0", nat_port_range=(5, 6), nat_outgoing_address="192.0.2.1")
    chain = objects[ObjectName("chain", "cali-nat-outgoing")]
    assert isinstance(chain, Chain)
    assert len(chain.rules) == 6
    for rule in chain.rules:
        assert isinstance(rule.action, Masquerade | SourceNat)
        assert Interface("out", "eth0") in rule.matches


def test_what_decides_is_counted_and_what_leads_on_is_not() -> None:
    for _, objects in all_objects():
        for value in objects.values():
            for rule in value.rules if isinstance(value, Chain) else ():
                leads_on = isinstance(rule.action, Jump | Goto | Dispatch | ClearMark)
                returns = rule.action == Return() and rule.origin.kind == "visit"
                assert rule.counted != (leads_on or returns or str(rule.origin) == "static established")
