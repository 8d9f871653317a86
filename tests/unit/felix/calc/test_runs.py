"""Runs of policies that are one look-up: which policies they are made of, and who is in their maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.felix.calc import runs
from calipy.felix.calc.change import SetKey
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Merged, Peer, Policy, PolicyId, PolicyRule, TierBinding
from calipy.model.sets import EndpointSet, NetSet, PortSet, SelectorSet, SetId, SetKind

X, Y, Z = (SelectorSet(SetId(f"s:{name}"), name) for name in "xyz")
SERVICE = EndpointSet(id=SetId("svcnoport:s"), namespace="n", service="s", with_ports=False)
ENDS = EndpointSet(id=SetId("svc:s"), namespace="n", service="s")
NAMED = EndpointSet(id=SetId("n:s"), selector="x", protocol=6, port="http")
NETS = NetSet(SetId("nets:n"), ("10.0.0.0/8",))
PORTS = PortSet(SetId("ports:p"), ((80, 80),))


ANY = Peer()


def rule(*, to: Peer = ANY, action: Any = "allow", **peer: Any) -> PolicyRule:
    return PolicyRule(action=action, number=0, protocol=6, source=Peer(**peer), destination=to)


ASKED: dict[str, tuple[list[PolicyRule], set[SetId] | None]] = {
    "no rules": ([], set()),
    "one set": ([rule(sets=(X,))], {X.id}),
    "two rules": ([rule(sets=(X,)), rule(sets=(Y,), action="deny")], {X.id, Y.id}),
    "two sets in one rule: the first is enough": ([rule(sets=(X, Y))], {X.id}),
    "whatever else is asked": (
        [rule(sets=(X,), not_sets=(Y,), nets=NETS, ports=PORTS, to=Peer(nets=NETS, ports=PORTS))], {X.id}
    ),
    "a log of those of a set": ([rule(sets=(X,), action="log"), rule(sets=(Y,))], {X.id, Y.id}),
    "a service's addresses": ([rule(sets=(SERVICE,))], {SERVICE.id}),
    "a service's ends, then a set": ([rule(sets=(ENDS, X))], {X.id}),
    "a service's ends": ([rule(sets=(ENDS,))], None),
    "a port by its name": ([rule(named_ports=(NAMED,))], None),
    "anybody": ([rule(sets=(X,)), rule()], None),
    "a log of anybody": ([rule(action="log"), rule(sets=(X,))], None),
    "anybody but those of a set": ([rule(not_sets=(X,))], None),
    "networks": ([rule(nets=NETS)], None),
    "a set of the other end": ([rule(to=Peer(sets=(X,)))], None),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_a_policy_may_be_left_out_for_whom_each_rule_needs_in_a_set(name: str) -> None:
    rules, expected = ASKED[name]
    assert runs.asked(policy(1, *rules), "ingress") == expected
    turned = [replace(each, source=each.destination, destination=each.source) for each in rules]
    assert runs.asked(policy(1, *turned, direction="egress"), "egress") == expected


def policy(number: int, *rules: PolicyRule, direction: str = "ingress") -> Policy:
    found: dict[str, Any] = {direction: rules}
    return Policy(id=ids(number)[0], tier="t", order=number, selector="all()", **found)


def ids(*numbers: int) -> tuple[PolicyId, ...]:
    return tuple(PolicyId("gnp", "", f"p{number}") for number in numbers)


def endpoint(
    *numbers: int, passing: Iterable[int] = (), name: str = "a", egress: Iterable[int] = ()
) -> WorkloadEndpoint:
    tier = TierBinding(
        tier="t", default_action="deny", ingress=ids(*numbers), egress=ids(*egress), passing=ids(*passing)
    )
    return WorkloadEndpoint(
        id=EndpointId("k8s", f"n/{name}", "eth0"), container_id=name, interface=name, addresses=(), tiers=(tier,)
    )


Sets = Mapping[SetKey, tuple[SetKind, frozenset[str]]]


def sets(wide: str = "", **members: Iterable[str]) -> Sets:
    return {
        SetKey(SetId(f"s:{name}"), family): (
            "prefixes" if name == wide else "addresses",
            frozenset(each for each in found if (":" in each) == (family == 6)),
        )
        for name, found in members.items()
        for family in (4, 6)
    }


def compute(policies: list[Policy], found: Sets, *endpoints: WorkloadEndpoint) -> runs.Outcome:
    return runs.compute({each.id: each for each in endpoints}, {each.id: each for each in policies}, found, (4, 6))


FROM_X, FROM_Y, FROM_Z = (rule(sets=(each,)) for each in (X, Y, Z))
SHARED = sets(x=["10.0.0.1", "10.0.0.2", "fd00::1"], y=["10.0.0.2", "10.0.0.3"], z=["10.0.0.2"])


def merged(outcome: runs.Outcome) -> list[tuple[PolicyId, ...]]:
    """The runs of the only endpoint."""
    (found,) = outcome.endpoints.values()
    assert {run.id for run in found.tiers[0].runs} == set(outcome.runs)
    return [run.policies for run in found.tiers[0].runs]


def test_an_address_has_the_bits_of_those_that_ask_for_it() -> None:
    policies = [policy(1, FROM_X), policy(2, FROM_Y), policy(3), policy(4, FROM_X, FROM_Z)]
    outcome = compute(policies, SHARED, endpoint(1, 2, 3, 4))
    assert merged(outcome) == [ids(1, 2, 3, 4)]
    (found,) = outcome.runs.values()
    assert found.masks == (0b10, 0b1001, 0b1011)
    assert outcome.sets == {
        SetKey(found.run.id, 4): ("askers", frozenset({"10.0.0.1 9", "10.0.0.2 11", "10.0.0.3 2"})),
        SetKey(found.run.id, 6): ("askers", frozenset({"fd00::1 9"})),
    }
    assert found.run.of(0b1001) == ids(1, 4)


ANYBODY = rule()
SPLIT: dict[str, tuple[list[Policy], WorkloadEndpoint, list[tuple[PolicyId, ...]]]] = {
    "one policy is no run": ([policy(1, FROM_X)], endpoint(1), []),
    "one for anybody comes between": (
        [policy(number, ANYBODY if number == 3 else FROM_X) for number in range(6)],
        endpoint(0, 1, 2, 3, 4, 5), [ids(0, 1, 2), ids(4, 5)],
    ),
    "and leaves one": ([policy(1, FROM_X), policy(2, ANYBODY), policy(3, FROM_Y)], endpoint(1, 2, 3), []),
    "one passes": (
        [policy(1, FROM_X), policy(2, replace(FROM_X, action="pass")), policy(3, FROM_Y), policy(4, FROM_Y)],
        endpoint(1, 2, 3, 4, passing=(2,)), [ids(3, 4)],
    ),
    "one of prefixes": ([policy(1, FROM_X), policy(2, FROM_Y), policy(3, FROM_Z)], endpoint(1, 2, 3), [ids(2, 3)]),
    "more than a mask has bits": (
        [policy(number, FROM_Y) for number in range(34)], endpoint(*range(34)), [ids(*range(32)), ids(32, 33)],
    ),
    "each direction by itself": (
        [replace(policy(number, FROM_Y), egress=(ANYBODY,)) for number in (1, 2)],
        endpoint(1, 2, egress=(1, 2)), [ids(1, 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLIT)
def test_what_makes_a_run(name: str) -> None:
    policies, governed, expected = SPLIT[name]
    wide = "x" if name == "one of prefixes" else ""
    assert merged(compute(policies, sets(wide=wide, x=["10.0.0.1"], y=["10.0.0.2"], z=[]), governed)) == expected


def test_endpoints_that_are_governed_alike_share_a_run() -> None:
    policies = [policy(1, FROM_X), policy(2, FROM_Y), policy(3, FROM_Z)]
    a, b, c = endpoint(1, 2, name="a"), endpoint(1, 2, name="b"), endpoint(2, 1, name="c")
    outcome = compute(policies, SHARED, a, b, c)
    assert len(outcome.runs) == 2
    assert outcome.endpoints[a.id].tiers == outcome.endpoints[b.id].tiers != outcome.endpoints[c.id].tiers


def test_too_many_addresses_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run, and of all runs together: each has its share."""
    policies = [policy(1, FROM_X), policy(2, FROM_Y), policy(3, FROM_Z)]
    small, large = endpoint(2, 3, name="a"), endpoint(1, 2, name="b")

    def found() -> list[tuple[PolicyId, ...]]:
        return sorted(each.run.policies for each in compute(policies, SHARED, small, large).runs.values())

    monkeypatch.setattr(runs, "_MOST_OF_A_RUN", 4)
    assert found() == [ids(1, 2), ids(2, 3)]
    monkeypatch.setattr(runs, "_MOST_OF_A_RUN", 3)
    assert found() == [ids(2, 3)]
    monkeypatch.setattr(runs, "_MOST_OF_A_RUN", 4)
    monkeypatch.setattr(runs, "_MOST_OF_ALL", 7)
    assert found() == [ids(2, 3)]


def test_too_many_ways_to_be_asked_for_are_too_many_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [policy(1, FROM_X), policy(2, FROM_Y)]
    assert [each.masks for each in compute(policies, SHARED, endpoint(1, 2)).runs.values()] == [(1, 2, 3)]
    monkeypatch.setattr(runs, "MOST_MASKS", 2)
    outcome = compute(policies, SHARED, endpoint(1, 2))
    assert (outcome.runs, outcome.sets, merged(outcome)) == ({}, {}, [])


def test_a_run_says_what_it_is_of() -> None:
    one, other = (
        next(iter(compute([policy(1, FROM_X), policy(2, FROM_Y)], SHARED, endpoint(*order)).runs.values()))
        for order in ((1, 2), (2, 1))
    )
    assert isinstance(one, Merged)
    assert one.run.id.startswith("run:")
    assert one.run.id != other.run.id
