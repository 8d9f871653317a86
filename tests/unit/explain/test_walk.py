"""The walk through rules made for the purpose: each match, each action, and how chains lead to each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from msgspec import Struct

from calipy.explain.verdicts import Packet
from calipy.explain.walk import Broken, Crossing, Ruleset, Walk, crossing, decisions
from calipy.felix.calc.change import NodeState
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import Members, ObjectName
from calipy.felix.rules import endpoints, names, statics
from calipy.felix.rules.values import (
    Accept,
    Action,
    Address,
    Chain,
    ClearMark,
    ConnectionState,
    Dispatch,
    Drop,
    Element,
    Family,
    Goto,
    Hook,
    IcmpCode,
    IcmpType,
    InEndpoints,
    InPorts,
    InSet,
    Interface,
    Jump,
    LocalSource,
    Log,
    Marked,
    Masquerade,
    Match,
    NoTrack,
    OwnSource,
    Pass,
    Ports,
    Protocol,
    Reject,
    Return,
    Rule,
    SetSpec,
    SourceNat,
)
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.origins import Origin

TCP = Packet(source="10.1.1.1", destination="10.2.2.2", protocol=6, source_port=40000, destination_port=80)
TCP6 = Packet(source="fd00::1", destination="fd00::2", protocol=6, source_port=40000, destination_port=80)
PING = Packet(source="10.1.1.1", destination="10.2.2.2", protocol=1, icmp_type=8, icmp_code=3)
GRE = Packet(source="10.1.1.1", destination="10.2.2.2", protocol=47)
SETS: dict[ObjectName, Struct] = {
    names.set_("hosts"): SetSpec("addresses", 4),
    names.members("hosts"): Members(frozenset({"10.1.1.1"})),
    names.set_("hosts6"): SetSpec("addresses", 6),
    names.members("hosts6"): Members(frozenset({"fd00::2"})),
    names.set_("nets"): SetSpec("prefixes", 4),
    names.members("nets"): Members(frozenset({"10.2.0.0/16", "192.0.2.1/32"})),
    names.set_("ends"): SetSpec("endpoints", 4),
    names.members("ends"): Members(frozenset({"10.2.2.2,tcp:80", "10.1.1.1,tcp:1"})),
    names.set_("ports"): SetSpec("ports"),
    names.members("ports"): Members(frozenset({"80", "8000-8080"})),
    names.set_("empty"): SetSpec("addresses", 4),
    names.set_("own"): SetSpec("sources", 4),
    names.element("own", "cali1 10.1.1.1"): Element(),
}


def chain(*rules: Any, hook: Any = None, priority: int = 0, kind: Any = "filter") -> Chain:
    """An action alone, or matches and behind them their action."""
    made = [rule if isinstance(rule, tuple) else (rule,) for rule in rules]
    at = Hook(type=kind, hook=hook, priority=priority) if hook else None
    parts = [Rule(tuple(rule[:-1]), rule[-1], Origin("test", str(n))) for n, rule in enumerate(made)]
    return Chain(tuple(parts), at)


def walk(
    chains: dict[str, Chain], packet: Packet = TCP, more: dict[ObjectName, Struct] | None = None, **at: Any
) -> Walk:
    objects = {**SETS, **(more or {}), **{names.chain(name): value for name, value in chains.items()}}
    where = {"incoming": "cali1", "outgoing": "eth0", **at}
    return Ruleset(objects).walk(Crossing(packet=packet, **where))


def met(found: Walk) -> list[str]:
    return [f"{visit.chain} {visit.number}" for visit in found.trace]


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (Interface("in", "cali1"), True),
        (Interface("in", "cali"), False),
        (Interface("in", "cali", prefix=True), True),
        (Interface("out", "cali", prefix=True), False),
        (Interface("out", "cali", prefix=True, negated=True), True),
        (Family(4), True),
        (Family(6), False),
        (Address("source", "10.1.1.1"), True),
        (Address("source", "10.2.2.2"), False),
        (Address("source", "10.2.2.2", negated=True), True),
        (Address("destination", "10.2.0.0/16"), True),
        (Address("destination", "10.2.0.0/16", negated=True), False),
        (Address("source", "fd00::1"), False),
        (Address("source", "fd00::1", negated=True), False),
        (InSet("source", "hosts", 4), True),
        (InSet("destination", "hosts", 4), False),
        (InSet("destination", "hosts", 4, negated=True), True),
        (InSet("source", "hosts6", 6, negated=True), False),
        (InSet("destination", "nets", 4), True),
        (InSet("source", "nets", 4), False),
        (InSet("source", "empty", 4), False),
        (InEndpoints("destination", "ends", 4), True),
        (InEndpoints("source", "ends", 4), False),
        (InEndpoints("source", "ends", 4, negated=True), True),
        (OwnSource("own", 4), True),
        (OwnSource("own", 4, negated=True), False),
        (Protocol(6), True),
        (Protocol(17), False),
        (Protocol(17, negated=True), True),
        (Ports("destination", 80, 81), True),
        (Ports("destination", 81, 82), False),
        (Ports("destination", 81, 82, negated=True), True),
        (Ports("source", 40000, 40000), True),
        (InPorts("destination", "ports"), True),
        (InPorts("source", "ports"), False),
        (InPorts("source", "ports", negated=True), True),
        (ConnectionState(("established", "new")), True),
        (ConnectionState(("established", "related")), False),
        (LocalSource(), False),
        (Marked(0x10), True),
        (Marked(0x18), False),
    ],
    ids=str,
)
def test_each_match_of_a_packet(match: Match, holds: bool) -> None:
    found = walk({"c": chain((match, Drop()), hook="forward")}, mark=0x11)
    assert found.allowed != holds


@pytest.mark.parametrize(
    ("match", "packet", "holds"),
    [
        (IcmpType(8, 8), PING, True),
        (IcmpType(0, 7), PING, False),
        (IcmpType(0, 7, negated=True), PING, True),
        (IcmpCode(8, 3), PING, True),
        (IcmpCode(8, 4), PING, False),
        (IcmpCode(8, 4, negated=True), PING, True),
        (IcmpCode(0, 4, negated=True), PING, False),
        # What stands where a type would: the first byte of TCP's source port.
        (IcmpType(40000 >> 8, 40000 >> 8), TCP, True),
        (IcmpType(8, 8, negated=True), GRE, False),
        (Ports("source", 0x803, 0x803), PING, True),
        (Ports("destination", 0, 65535), PING, False),
        (Ports("destination", 80, 80, negated=True), GRE, False),
        (InPorts("destination", "ports", negated=True), GRE, False),
        (InEndpoints("destination", "ends", 4, negated=True), GRE, True),
        (InSet("destination", "hosts6", 6), TCP6, True),
        (Address("source", "fd00::/16"), TCP6, True),
        (Address("source", "10.0.0.0/8", negated=True), TCP6, False),
    ],
    ids=str,
)
def test_transport_matches_look_at_bytes(match: Match, packet: Packet, holds: bool) -> None:
    found = walk({"c": chain((match, Drop()), hook="forward")}, packet)
    assert found.allowed != holds


def test_a_packet_of_the_node_s_own_has_no_incoming_interface() -> None:
    local = chain((LocalSource(), Drop()), hook="output")
    assert not walk({"c": local}, incoming="").allowed
    assert not walk({"c": chain((Interface("in", "cali", True, True), Drop()), hook="output")}, incoming="").allowed


@pytest.mark.parametrize(("action", "end"), [(Accept(), "accept"), (Drop(), "drop"), (Reject(), "reject")])
def test_what_ends_a_chain(action: Action, end: str) -> None:
    found = walk({"c": chain(Log("x"), action, Drop(), hook="forward")})
    (ending,) = found.endings
    assert (ending.end, ending.by and ending.by.number) == (end, 1)
    assert met(found) == ["c 0", "c 1"]


def test_a_chain_that_says_nothing_accepts() -> None:
    (ending,) = walk({"c": chain((Family(6), Drop()), hook="forward")}).endings
    assert (ending.end, ending.by) == ("accept", None)


def test_a_jump_comes_back_and_a_goto_does_not() -> None:
    chains = {
        "base": chain(Jump("one"), Log("after one"), Goto("two"), Drop(), hook="forward"),
        "one": chain(Goto("three"), Drop()),
        "two": chain(Return(), Drop()),
        "three": chain(Log("three")),
    }
    found = walk(chains)
    assert met(found) == ["base 0", "one 0", "three 0", "base 1", "base 2", "two 0"]
    assert found.allowed


def test_a_return_from_the_base_chain_ends_it() -> None:
    (ending,) = walk({"c": chain(Return(), Drop(), hook="forward")}).endings
    assert (ending.end, ending.by and ending.by.number) == ("accept", 0)


def test_an_accept_ends_one_base_chain_alone_and_a_drop_the_packet() -> None:
    chains = {
        "last": chain(Log("last"), hook="forward", priority=5),
        "second": chain(Drop(), hook="forward", priority=0),
        "first": chain(Jump("far"), Drop(), hook="forward", priority=-1),
        "far": chain(Accept()),
        "elsewhere": chain(Drop(), hook="input"),
        "before": chain(Log("raw"), hook="prerouting", priority=-300),
    }
    found = walk(chains)
    assert met(found) == ["before 0", "first 0", "far 0", "second 0"]
    assert [(ending.chain, ending.end) for ending in found.endings] == [
        ("before", "accept"), ("first", "accept"), ("second", "drop"),
    ]  # fmt: skip
    assert not found.allowed


@pytest.mark.parametrize(
    ("incoming", "outgoing", "hooks"),
    [
        ("cali1", "eth0", ["prerouting", "forward", "postrouting"]),
        ("cali1", "", ["prerouting", "input"]),
        ("", "cali1", ["output", "postrouting"]),
    ],
)
def test_which_hooks_a_packet_passes(incoming: str, outgoing: str, hooks: list[str]) -> None:
    chains = {hook: chain(Log(hook), hook=hook) for hook in ("input", "forward", "output", "prerouting", "postrouting")}
    found = walk(chains, incoming=incoming, outgoing=outgoing)
    assert [visit.chain for visit in found.trace] == hooks


def test_marks_are_set_cleared_and_kept_from_chain_to_chain() -> None:
    chains = {
        "base": chain(
            Jump("tier"), (Marked(0x30), Log("both")), ClearMark(0x10), (Marked(0x10), Drop()), hook="forward"
        ),
        "tier": chain(Pass(0x10), Drop()),
    }
    found = walk(chains, mark=0x20)
    assert met(found) == ["base 0", "tier 0", "base 1", "base 2"]
    assert (found.allowed, found.mark) == (True, 0x20)


def test_a_map_sends_a_packet_by_its_interface() -> None:
    chains = {
        "base": chain(Jump("dispatch"), Log("back"), hook="forward"),
        "dispatch": chain(Dispatch("map", "in"), Dispatch("map", "out"), Drop()),
        "mine": chain(Log("mine")),
    }
    more: dict[ObjectName, Struct] = {
        names.set_("map"): SetSpec("interfaces"),
        names.element("map", "cali1"): Element(Jump("mine")),
        names.element("map", "cali2"): Element(Goto("mine")),
        names.element("map", "cali3"): Element(Drop()),
    }
    assert met(walk(chains, more=more)) == ["base 0", "dispatch 0", "mine 0", "dispatch 2"]
    assert met(walk(chains, more=more, incoming="cali2")) == ["base 0", "dispatch 0", "mine 0", "base 1"]
    assert met(walk(chains, more=more, incoming="cali3")) == ["base 0", "dispatch 0"]
    assert met(walk(chains, more=more, incoming="x", outgoing="cali2")) == ["base 0", "dispatch 1", "mine 0", "base 1"]


def test_translations_are_for_new_connections_and_end_their_chain() -> None:
    chains = {"nat": chain(Masquerade(), Drop(), hook="postrouting", kind="nat", priority=100)}
    assert met(walk(chains)) == ["nat 0"]
    assert met(walk(chains, state="established")) == []
    chains = {"nat": chain(SourceNat("192.0.2.1"), Drop(), hook="postrouting", kind="nat", priority=100)}
    assert met(walk(chains)) == ["nat 0"]


def test_what_is_not_tracked_has_no_state() -> None:
    chains = {
        "raw": chain(NoTrack(), hook="prerouting", priority=-300),
        "forward": chain(
            (ConnectionState(("new",)), Drop()), (ConnectionState(("untracked",)), Accept()), hook="forward"
        ),
    }
    assert met(walk(chains)) == ["raw 0", "forward 1"]


@pytest.mark.parametrize(
    ("chains", "problem"),
    [
        ({"base": chain(Jump("gone"), hook="forward")}, "chain gone isn't there"),
        ({"base": chain((InSet("source", "gone", 4), Drop()), hook="forward")}, "set gone isn't there"),
        ({"base": chain(Dispatch("gone", "in"), hook="forward")}, "set gone isn't there"),
        (
            {"base": chain(Jump("a"), hook="forward"), "a": chain(Goto("b")), "b": chain(Jump("a"))},
            "chain a is reached by more than 16 jumps",
        ),
    ],
)
def test_rules_that_no_kernel_would_take(chains: dict[str, Chain], problem: str) -> None:
    with pytest.raises(Broken, match=problem):
        walk(chains)


# --- on a node ---

POD = WorkloadEndpoint(
    id=EndpointId("k8s", "x/a", "eth0"), container_id="c", interface="cali1", addresses=("10.1.1.1", "fd00::1"),
    namespace="x", pod="a",
)  # fmt: skip
STATE = NodeState(settings=FelixSettings(), endpoints={POD.id: POD})
NODE = {**statics.compile(STATE), **endpoints.closed(POD), **endpoints.compile(POD, STATE.settings)}
OWN = ("192.0.2.1",)


def on_node(source: str, destination: str, **fields: Any) -> tuple[Crossing, dict[str, str]]:
    packet = Packet(source=source, destination=destination, protocol=6, destination_port=80)
    at = crossing(STATE, packet, OWN)
    at = Crossing(packet=packet, **{"incoming": at.incoming, "outgoing": at.outgoing, **fields})
    found = Ruleset(NODE).walk(at)
    said: Iterable[Any] = decisions(found, STATE).values()
    return at, {each.direction: f"{'allow' if each.allowed else 'deny'} {each}" for each in said}


def test_how_packets_cross_a_node_and_who_has_decided() -> None:
    for source, destination, incoming, outgoing, said in (
        ("10.1.1.1", "8.8.8.8", "cali1", "eth0", {"egress": "deny egress no profile"}),
        (
            "8.8.8.8", "10.1.1.1", "eth0", "cali1",
            {"egress": "allow egress not governed", "ingress": "deny ingress no profile"},
        ),
        ("10.1.1.1", "192.0.2.1", "cali1", "", {"egress": "deny egress no profile"}),
        (
            "192.0.2.1", "10.1.1.1", "", "cali1",
            {"egress": "allow egress not governed", "ingress": "allow ingress own node"},
        ),
        (
            "192.0.2.1", "8.8.8.8", "", "eth0",
            {"egress": "allow egress not governed", "ingress": "allow ingress not governed"},
        ),
        (
            "8.8.8.8", "192.0.2.1", "eth0", "",
            {"egress": "allow egress not governed", "ingress": "allow ingress not governed"},
        ),
    ):  # fmt: skip
        at, found = on_node(source, destination)
        assert (at.incoming, at.outgoing, found) == (incoming, outgoing, said)


def test_what_no_policy_has_a_say_in() -> None:
    assert on_node("10.1.1.9", "8.8.8.8", incoming="cali1")[1] == {"egress": "deny egress spoofed"}
    assert on_node("10.1.1.1", "8.8.8.8", state="invalid")[1] == {"egress": "deny egress invalid"}
    assert on_node("10.1.1.1", "8.8.8.8", state="established")[1] == {
        "egress": "allow egress established", "ingress": "allow ingress established",
    }  # fmt: skip
    assert on_node("8.8.8.8", "10.1.1.1", outgoing="cali9")[1]["ingress"] == "deny ingress unknown interface"
