"""Policies and profiles as rules. policies.txt holds the cases: what a user writes, and the chains that it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.conversion import policies as conversion
from calipy.felix.calc.change import NodeState, SetKey
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dialects.text import chain_text
from calipy.felix.objects import Objects, Owner
from calipy.felix.rules import names, policies, profiles
from calipy.felix.rules.compile import RulesPlanner, policy_owner, profile_owner
from calipy.felix.rules.values import Chain, Drop, Log, Pass, Rate, Reject, Rule
from calipy.model.policies import Peer, Policy, PolicyId, PolicyRule, Profile
from calipy.model.sets import EndpointSet, NetSet, PortSet, SelectorSet, SetKind
from calipy.resources import kinds
from tests.unit.conversion.policy_texts import Case, cases
from tests.unit.resources.objects import made

CASES = list(cases(Path(__file__).with_name("policies.txt")))
FLIPPING: tuple[SetKind, ...] = ("prefixes", "addresses")


def given(case: Case) -> Policy:
    """The policy of a case, whether the store's edge takes it or not."""
    metadata = case.given["metadata"]
    kind = kinds.BY_NAME[case.given["kind"]]
    found = made(kind, case.given["spec"], metadata["name"], namespace=metadata.get("namespace", ""))
    head = conversion.head(found)
    rules = {way: tuple(conversion.rules(found, way)) for way in policies.DIRECTIONS if head.rules(way) is not None}
    return replace(head, **rules)


def settings_of(case: Case) -> FelixSettings:
    found = dict(case.given.get("settings", {}))
    if "log_action_rate_limit" in found:
        found["log_action_rate_limit"] = tuple(found["log_action_rate_limit"])
    return FelixSettings(**found)


def sets_of(rule: PolicyRule) -> Iterator[tuple[SetKey, SetKind, str]]:
    """The sets that a rule may use, and what to call them here."""
    for peer in (rule.source, rule.destination):
        for family in (4, 6):
            for found in (*peer.sets, *peer.not_sets, *peer.named_ports, *peer.not_named_ports):
                kind: SetKind = "endpoints" if isinstance(found, EndpointSet) and found.with_ports else "addresses"
                yield SetKey(found.id, family), kind, f"{family}{set_text(found)}"
            for nets in filter(None, (peer.nets, peer.not_nets)):
                yield SetKey(nets.id, family), "prefixes", f"{family}[{' '.join(nets.of(family))}]"
        for ports in filter(None, (peer.ports, peer.not_ports)):
            yield SetKey(ports.id, 0), "ports", f"{ports.ranges}".replace(",)", ")")


def set_text(found: SelectorSet | EndpointSet) -> str:
    if isinstance(found, SelectorSet):
        return f"{{{found.selector}}}"
    if found.service:
        return f"<{found.namespace}/{found.service}>"
    return f"{{{found.selector}}}:{found.port}"


def all_rules(found: Policy | Profile) -> list[PolicyRule]:
    return [*(found.ingress or ()), *(found.egress or ())]


def state(found: Policy | Profile, settings: FelixSettings, *, prefixes: bool = False) -> NodeState:
    kinds = {key: kind for rule in all_rules(found) for key, kind, _ in sets_of(rule)}
    if prefixes:
        kinds = {key: "prefixes" if kind == "addresses" else kind for key, kind in kinds.items()}
    return NodeState(settings=settings, sets=kinds, members=dict.fromkeys(kinds, frozenset()))


def compiled(found: Policy | Profile, state: NodeState) -> Objects:
    """All chains of a policy or profile, without a pause."""
    objects = RulesPlanner().plan(owner_of(found), with_judge(found, state)).objects
    assert objects is not None
    return objects


def owner_of(found: Policy | Profile) -> Owner:
    return policy_owner(found.id) if isinstance(found, Policy) else profile_owner(found.name)


def with_judge(found: Policy | Profile, state: NodeState) -> NodeState:
    if isinstance(found, Policy):
        return replace(state, policies={found.id: found})
    return replace(state, profiles={found.name: found})


def text(objects: Objects, found: Policy | Profile) -> str:
    """The chains, their sets by what they stand for."""
    said = "\n".join(
        chain_text(name.name, value) for name, value in objects.items() if isinstance(value, Chain) and value.rules
    )
    for rule in all_rules(found):
        for key, kind, words in sets_of(rule):
            for each in FLIPPING if kind in FLIPPING else (kind,):
                said = said.replace(f"@{names.set_name(key, each)}", f"@{words}")
    return said


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_policy_becomes(case: Case) -> None:
    found = given(case)
    assert text(compiled(found, state(found, settings_of(case))), found) == case.expected


def chains(objects: Objects) -> dict[str, tuple[Rule, ...]]:
    return {name.name: value.rules for name, value in objects.items() if isinstance(value, Chain)}


def gnp(*rules: PolicyRule, name: str = "a", tier: str = "default") -> Policy:
    return Policy(id=PolicyId("gnp", "", name), tier=tier, order=1.0, selector="all()", ingress=rules)


def actions(found: Policy, **settings: Any) -> list[Any]:
    objects = compiled(found, state(found, FelixSettings(**settings)))
    return [rule.action for rules in chains(objects).values() for rule in rules]


def test_a_policy_has_a_chain_for_each_direction_that_it_governs() -> None:
    both = replace(gnp(), egress=())
    for found, expected in (
        (gnp(), {"cali-pi-gnp/a"}),
        (both, {"cali-pi-gnp/a", "cali-po-gnp/a"}),
        (replace(both, ingress=None), {"cali-po-gnp/a"}),
    ):
        assert chains(compiled(found, state(found, FelixSettings()))).keys() == expected
        assert chains(policies.closed(found)).keys() == expected


def test_what_denies_is_a_setting_but_what_is_refused_is_dropped() -> None:
    deny = gnp(PolicyRule(action="deny", number=0))
    assert actions(deny) == [Drop()]
    assert actions(deny, filter_deny_action="REJECT") == [Reject()]
    for rules in chains(policies.closed(replace(deny, egress=()))).values():
        assert [(rule.matches, rule.action) for rule in rules] == [((), Drop())]


@pytest.mark.parametrize(("mask", "bit"), [(0xFFFF0000, 0x20000), (0xFF, 2), (0x80000001, 0x80000000), (0x0A, 8)])
def test_passing_marks_the_second_lowest_bit(mask: int, bit: int) -> None:
    rule = PolicyRule(action="pass", number=0)
    assert actions(gnp(rule), nftables_mark_mask=mask) == [Pass(bit)]
    assert policies.passed(FelixSettings(nftables_mark_mask=mask)) == bit


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("calico-packet", "calico-packet: "),
        ("%t %k", "security np: "),
        ("%n|%p", "web|shop/web: "),
        ("100% of %t%", "100% of security%: "),
        ("%%t%x", "%security%x: "),
        ("p" * 200, "p" * 125 + ": "),
    ],
)
def test_a_log_line_begins_as_calicos(template: str, expected: str) -> None:
    rule = PolicyRule(action="log", number=0)
    found = replace(gnp(rule, tier="security"), id=PolicyId("np", "shop", "web"))
    assert actions(found, log_prefix=template) == [Log(expected)]


def test_what_is_logged_may_be_limited() -> None:
    found = gnp(PolicyRule(action="log", number=0))
    limited = actions(found, log_action_rate_limit=(7, 60), log_action_rate_limit_burst=9)
    assert limited == [Log("calico-packet: ", Rate(7, 60, 9))]


def test_a_set_of_prefixes_is_another_set() -> None:
    found = gnp(PolicyRule(action="allow", number=0, source=Peer(sets=(SelectorSet("s:x", "all()"),))))  # type: ignore[arg-type]
    (rules,) = chains(compiled(found, state(found, FelixSettings(), prefixes=True))).values()
    assert [rule.matches[-1].set for rule in rules] == ["cali40-s-x-nets", "cali60-s-x-nets"]  # type: ignore[union-attr]


def test_a_set_that_is_not_there_is_named_so_that_the_kernel_refuses() -> None:
    found = gnp(PolicyRule(action="allow", number=0, source=Peer(sets=(SelectorSet("s:x", "all()"),))))  # type: ignore[arg-type]
    (rules,) = chains(compiled(found, NodeState(settings=FelixSettings()))).values()
    assert [rule.matches[-1].set for rule in rules] == ["cali40-s-x", "cali60-s-x"]  # type: ignore[union-attr]


def test_a_long_list_is_one_match() -> None:
    nets = NetSet("nets:x", tuple(f"10.0.{number}.0/24" for number in range(200)))  # type: ignore[arg-type]
    ports = PortSet("ports:x", tuple((number, number) for number in range(1, 200, 2)))  # type: ignore[arg-type]
    peer = Peer(nets=nets, ports=ports)
    found = gnp(PolicyRule(action="allow", number=0, protocol=6, source=peer, destination=peer))
    (rules,) = chains(compiled(found, state(found, FelixSettings()))).values()
    assert [len(rule.matches) for rule in rules] == [5]


def test_whoever_compiles_a_thousand_rules_may_pause() -> None:
    found = gnp(*(PolicyRule(action="allow", number=number, protocol=6) for number in range(1000)))
    steps = policies.steps(found, NodeState(settings=FelixSettings()))
    assert len([pause for pause in steps if pause is None]) == 10
    assert len(chains(compiled(found, NodeState(settings=FelixSettings())))["cali-pi-gnp/a"]) == 1000


def test_a_profile_has_both_chains_and_its_name_in_them() -> None:
    allow_all = conversion.profile("kns.shop", None)
    found = replace(allow_all, ingress=(PolicyRule(action="deny", number=0, protocol=17), *allow_all.ingress))
    assert text(compiled(found, state(found, FelixSettings())), found) == (
        "cali-pri-kns.shop:\n  udp drop  # profile kns.shop ingress 0\n  accept  # profile kns.shop ingress 0\n"
        "cali-pro-kns.shop:\n  accept  # profile kns.shop egress 0"
    )
    empty = Profile(name="ksa.shop.web")
    assert chains(compiled(empty, state(empty, FelixSettings()))) == {
        "cali-pri-ksa.shop.web": (), "cali-pro-ksa.shop.web": ()
    }  # fmt: skip
    for rules in chains(profiles.closed(found)).values():
        assert [(rule.matches, rule.action) for rule in rules] == [((), Drop())]


def test_every_rule_says_where_it_comes_from() -> None:
    for case in CASES:
        found = given(case)
        for chain, rules in chains(compiled(found, state(found, FelixSettings()))).items():
            direction = "ingress" if chain.startswith("cali-pi-") else "egress"
            for rule in rules:
                assert rule.origin.kind == "policy"
                head, _, number = rule.origin.name.rpartition(" ")
                assert head == f"{found.tier}/{found.id} {direction}"
                assert int(number) < len(found.rules(direction) or ())  # type: ignore[arg-type]
