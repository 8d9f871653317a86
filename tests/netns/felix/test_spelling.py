"""What the driver writes, as nft reads it: every match and action, every kind of set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from calipy.felix.drivers.nftables import NftablesDriver
from calipy.felix.objects import Alter, Delete, Found, ObjectName, Op, Outcome, Owner, Put
from calipy.felix.rules import names
from calipy.felix.rules import values as v
from calipy.model.origins import Origin
from calipy.netlink.socket import NETFILTER, NetlinkSocket

OWNER = Owner("test", "")
SETS: dict[str, tuple[v.SetSpec, list[str]]] = {
    "a4": (v.SetSpec("addresses", 4), ["10.0.0.1", "10.0.0.2"]),
    "a6": (v.SetSpec("addresses", 6), ["fd00::1"]),
    "n4": (v.SetSpec("prefixes", 4), ["0.0.0.0/1", "192.0.2.0/25", "192.0.2.128", "255.255.255.255"]),
    "n6": (v.SetSpec("prefixes", 6), ["::1", "fd00::/8", "fe00::/7"]),
    "e4": (v.SetSpec("endpoints", 4), ["10.0.0.1,tcp:80", "10.0.0.1,udp:53", "10.0.0.2,sctp:7777", "10.0.0.3,136:9"]),
    "e6": (v.SetSpec("endpoints", 6), ["fd00::1,tcp:80", "fd00::1,sctp:65535"]),
    "m4": (v.SetSpec("askers", 4), ["10.0.0.1 1", "10.0.0.2 4294967295"]),
    "m6": (v.SetSpec("askers", 6), ["fd00::1 3"]),
    "p": (v.SetSpec("ports"), ["0", "80", "81-90", "8000-8080", "65535"]),
}
MATCHES: dict[v.Match, str] = {
    v.Interface("in", "cali", prefix=True): 'iifname "cali*"',
    v.Interface("out", "eth0", negated=True): 'oifname != "eth0"',
    v.Family(6): "meta nfproto ipv6",
    v.Address("source", "10.0.0.1"): "ip saddr 10.0.0.1",
    v.Address("destination", "10.0.0.0/9", negated=True): "ip daddr != 10.0.0.0/9",
    v.Address("destination", "fe80::/10"): "ip6 daddr fe80::/10",
    v.InSet("source", "a4", 4): "ip saddr @a4",
    v.InSet("destination", "n6", 6, negated=True): "ip6 daddr != @n6",
    v.InEndpoints("destination", "e4", 4): "ip daddr . meta l4proto . th dport @e4",
    v.InEndpoints("source", "e6", 6, negated=True): "ip6 saddr . meta l4proto . th sport != @e6",
    v.Protocol(132): "meta l4proto sctp",
    v.Protocol(6, negated=True): "meta l4proto != tcp",
    v.ConnectionState(("invalid",)): "ct state invalid",
    v.LocalSource(): "fib saddr type local",
    v.Marked(0x20000): "meta mark & 0x00020000 == 0x00020000",
}
TCP, ICMP, ICMP6 = v.Protocol(6), v.Protocol(1), v.Protocol(58)
RUNS: dict[tuple[v.Match, ...], str] = {
    **{(match,): text for match, text in MATCHES.items()},
    (TCP, v.Ports("destination", 80, 80)): "tcp dport 80",
    (TCP, v.Ports("source", 80, 80, negated=True)): "tcp sport != 80",
    (TCP, v.Ports("destination", 80, 90)): "tcp dport 80-90",
    (TCP, v.Ports("source", 80, 90, negated=True)): "tcp sport != 80-90",
    (TCP, v.InPorts("destination", "p")): "tcp dport @p",
    (TCP, v.InPorts("source", "p", negated=True)): "tcp sport != @p",
    (ICMP, v.IcmpType(8, 8)): "icmp type echo-request",
    (ICMP, v.IcmpType(8, 8, negated=True)): "icmp type != echo-request",
    (ICMP6, v.IcmpType(133, 136)): "icmpv6 type 133-136",
    (ICMP6, v.IcmpType(133, 136, negated=True)): "icmpv6 type != 133-136",
    (ICMP, v.IcmpCode(3, 4)): "icmp type destination-unreachable icmp code frag-needed",
    (ICMP, v.IcmpCode(3, 4, negated=True)): "icmp type destination-unreachable icmp code != frag-needed",
    (v.InSet("source", "a4", 4), v.InEndpoints("destination", "e4", 4)):
        "ip saddr @a4 ip daddr . meta l4proto . th dport @e4",
    (v.InSet("source", "a6", 6), TCP, v.InSet("destination", "n6", 6, negated=True)):
        "ip6 saddr @a6 meta l4proto tcp ip6 daddr != @n6",
}  # fmt: skip
ACTIONS: dict[v.Action, str] = {
    v.Accept(): "accept",
    v.Drop(): "drop",
    v.Return(): "return",
    v.Reject(): "reject",
    v.Jump("cali-pi-knp/default/web"): "jump cali-pi-knp/default/web",
    v.Goto("cali-pi-knp/default/web"): "goto cali-pi-knp/default/web",
    v.Pass(0x20000): "meta mark set meta mark | 0x00020000 return",
    v.ClearMark(0x20000): "meta mark set meta mark & 0xfffdffff",
    v.Log("calico-packet: "): 'log prefix "calico-packet: " level info',
    v.Log("np/a/b: ", v.Rate(5, 60, 7)): 'limit rate 5/minute burst 7 packets log prefix "np/a/b: " level info',
}


@pytest.fixture
def host(namespaces: Callable[[str], Any]) -> Any:
    return namespaces("host")


@pytest.fixture
def driver(host: Any) -> Iterator[NftablesDriver]:
    made = NftablesDriver(NetlinkSocket.open(NETFILTER, namespace=host.fd), own=False)
    yield made
    made.close()


def read(driver: NftablesDriver) -> Found:
    return next(step for step in driver.read() if step is not None)


def put(driver: NftablesDriver, chains: dict[str, v.Chain]) -> None:
    ops: list[Op] = [Put(OWNER, names.set_(name), spec) for name, (spec, _) in SETS.items()]
    ops += [Alter(OWNER, names.members(name), frozenset(keys), frozenset()) for name, (_, keys) in SETS.items()]
    ops += [Put(OWNER, names.chain(name), chain) for name, chain in chains.items()]
    outcome = driver.apply(tuple(ops))
    assert (outcome.refusals, outcome.resync) == ((), "")


def listed(host: Any, chain: str) -> list[str]:
    """Rules without counter, fingerprint and origin."""
    lines = host.run("nft", "-s", "list", "chain", "inet", "calipy", chain).splitlines()[2:-2]
    return [line.partition(" comment")[0].strip().replace("counter ", "") for line in lines]


def test_matches_and_actions(host: Any, driver: NftablesDriver) -> None:
    rules = [v.Rule(matches, v.Drop(), Origin("test")) for matches in RUNS]
    ends = [v.Rule((), action, Origin("test")) for action in ACTIONS]
    chains = {"cali-pi-knp/default/web": v.Chain(()), "matches": v.Chain(tuple(rules)), "actions": v.Chain(tuple(ends))}
    put(driver, chains)
    assert listed(host, "matches") == [f"{text} drop" for text in RUNS.values()]
    assert listed(host, "actions") == list(ACTIONS.values())
    json.loads(host.run("nft", "-j", "list", "ruleset"))
    found = read(driver)
    for name, chain in chains.items():
        assert found[names.chain(name)] == driver.fingerprint(chain)


def test_a_listing_can_be_loaded_again(host: Any, driver: NftablesDriver) -> None:
    """So every name and key is one that nft takes."""
    put(driver, {"cali-pi-gnp/a.b": v.Chain(tuple(v.Rule(matches, v.Drop(), Origin("test")) for matches in RUNS))})
    text = host.run("nft", "list", "table", "inet", "calipy")
    host.run("nft", "delete", "table", "inet", "calipy")
    host.run("nft", "-f", "-", text=text)
    assert host.run("nft", "list", "table", "inet", "calipy") == text


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_as_it_was_written(host: Any, driver: NftablesDriver, name: str) -> None:
    spec, keys = SETS[name]
    put(driver, {})
    found = read(driver)
    assert found[names.set_(name)] == driver.fingerprint(spec)
    assert found[names.members(name)] == frozenset(keys)
    for going in keys:
        left = frozenset(keys) - {going}
        for added, removed in ((frozenset(), frozenset({going})), (frozenset({going}), frozenset())):
            outcome = driver.apply((Alter(OWNER, names.members(name), added, removed),))
            assert not outcome.refusals
            assert read(driver)[names.members(name)] == left | added


def test_a_value_changes_in_one_batch(driver: NftablesDriver) -> None:
    put(driver, {})
    outcome = driver.apply((Alter(OWNER, names.members("m4"), frozenset({"10.0.0.1 2"}), frozenset({"10.0.0.1 1"})),))
    assert (outcome.refusals, outcome.resync) == ((), "")
    assert read(driver)[names.members("m4")] == {"10.0.0.1 2", "10.0.0.2 4294967295"}


def test_a_run_comes_changes_all_its_masks_and_goes(host: Any, driver: NftablesDriver) -> None:
    """Each in one batch, with all the masks that there may be; a policy's chain goes with the map that leads to it."""
    chain = v.Chain((v.Rule((), v.Ask("source", "m4", "verdicts", 4), Origin("visit", "x"), counted=False),))
    target = v.Chain((v.Rule((), v.Accept(), Origin("test")),))
    objects = {names.set_("m4"): v.SetSpec("askers", 4), names.set_("verdicts"): v.SetSpec("masks"),
               names.chain("tw"): chain, names.chain("target"): target}  # fmt: skip
    first, second = ([names.element("verdicts", str(mask)) for mask in masks] for masks in (range(64), range(64, 128)))
    jump = v.Element(v.Jump("target"))
    ops: list[Op] = [Put(OWNER, name, value) for name, value in objects.items()]
    ops += [Put(OWNER, name, jump) for name in first]
    ops.append(Alter(OWNER, names.members("m4"), frozenset({"10.0.0.1 1"}), frozenset()))
    assert driver.apply(tuple(ops)) == Outcome()
    assert read(driver) == {
        **{name: driver.fingerprint(value) for name, value in objects.items()},
        **dict.fromkeys(first, driver.fingerprint(jump)),
        names.members("m4"): frozenset({"10.0.0.1 1"}),
    }
    listing = host.run("nft", "list", "ruleset")
    assert re.search(r"ip saddr map @m4 != 0x0\b.* 0x0\b.* vmap @verdicts", listing)
    assert "10.0.0.1 : 0x00000001" in listing
    assert "0x00000000 . 0x00000001 : jump target" in listing
    json.loads(host.run("nft", "-j", "list", "ruleset"))
    assert driver.apply((*(Delete(OWNER, name) for name in first), *(Put(OWNER, name, jump) for name in second))) == (
        Outcome()
    )
    gone: list[Op] = [Delete(OWNER, name) for name in (*second, *objects)]
    gone.append(Alter(OWNER, names.members("m4"), frozenset(), frozenset({"10.0.0.1 1"})))
    assert driver.apply(tuple(gone)) == Outcome()
    assert read(driver) == {}


def test_sets_as_nft_lists_them(host: Any, driver: NftablesDriver) -> None:
    put(driver, {})
    kinds = {name: "map" if spec.kind == "askers" else "set" for name, (spec, _) in SETS.items()}
    shown = {
        name: " ".join(host.run("nft", "list", kind, "inet", "calipy", name).split()) for name, kind in kinds.items()
    }
    assert "type ipv6_addr : mark elements = { fd00::1 : 0x00000003 }" in shown["m6"]
    assert "type ipv4_addr . inet_proto . inet_service" in shown["e4"]
    assert "10.0.0.2 . sctp . 7777" in shown["e4"]
    assert "type ipv6_addr . inet_proto . inet_service" in shown["e6"]
    assert "fd00::1 . sctp . 65535" in shown["e6"]
    assert "type inet_service flags interval elements = { 0, 80, 81-90, 8000-8080, 65535 }" in shown["p"]


def test_a_strange_shape_of_one_of_our_names_is_not_taken_for_ours(host: Any, driver: NftablesDriver) -> None:
    driver.open()
    host.run("nft", "add set inet calipy p { type inet_service; }")
    host.run("nft", "add map inet calipy e4 { type ipv4_addr . inet_proto . inet_service : verdict; }")
    found = read(driver)
    for name in ("p", "e4"):
        assert found[names.set_(name)] not in (driver.fingerprint(SETS[name][0]), None)
        assert ObjectName("members", name) not in found


def like(number: int) -> list[Op]:
    """What an endpoint has alike with every other but its name."""
    chain, verdict = f"cali-tw-cali{number:02}", v.Goto(f"cali-tw-cali{number:02}")
    return [
        Put(OWNER, names.chain(chain), LIKE),
        Put(OWNER, names.element("m", f"cali{number:02}"), v.Element(verdict)),
        Put(OWNER, names.element("s", f"cali{number:02} 10.0.0.{number}"), v.Element()),
    ]


LIKE = v.Chain((v.Rule((), v.Jump("cali-pri-x"), Origin("test")), v.Rule((), v.Drop(), Origin("test"))))
AROUND: list[Op] = [
    Put(OWNER, names.set_("m"), v.SetSpec("interfaces")),
    Put(OWNER, names.set_("s"), v.SetSpec("sources", 4)),
    Put(OWNER, names.chain("cali-pri-x"), v.Chain(())),
]


def test_what_is_alike_is_read_as_it_was_written(driver: NftablesDriver) -> None:
    ops = [*AROUND, *(op for number in range(20) for op in like(number))]
    assert driver.apply(tuple(ops)).refusals == ()
    assert read(driver) == {op.name: driver.fingerprint(op.value) for op in ops if isinstance(op, Put)}
    again = tuple(msgspec.structs.replace(op, replaces=True) for op in ops[len(AROUND) :])
    assert driver.apply(again).refusals == ()
    assert read(driver) == {op.name: driver.fingerprint(op.value) for op in ops if isinstance(op, Put)}


def test_of_what_is_alike_that_is_named_which_is_refused(driver: NftablesDriver) -> None:
    """One element leads to a chain that isn't there; another has no bytes."""
    ops = [*AROUND, *(op for number in range(20) for op in like(number) if op.name.name != "cali-tw-cali07")]
    (refusal,) = driver.apply(tuple(ops)).refusals
    assert refusal.name == names.element("m", "cali07")
    unwritable = Put(OWNER, names.element("s", "cali21 10.0.0.999"), v.Element())
    (refusal,) = driver.apply((*ops, unwritable)).refusals
    assert refusal.name == unwritable.name
    assert read(driver) == {}
