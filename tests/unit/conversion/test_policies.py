"""Calico's policies and profiles as Policy and Profile. policies.txt holds the cases, and what each becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from calipy.conversion import policies
from calipy.model.policies import Policy, PolicyRule
from calipy.model.sets import EndpointSet, SelectorSet
from calipy.resources import kinds, profiles
from calipy.resources.selectors import Selector, parse
from tests.unit.conversion.policy_texts import Case, cases, direction_lines, head_text, rule_text
from tests.unit.resources.objects import made, said

CASES = list(cases(Path(__file__).with_name("policies.txt")))


def policy(kind: str, spec: dict[str, Any], name: str, namespace: str = "") -> Policy:
    """An object that is right, with all its rules."""
    found = made(kinds.BY_NAME[kind], spec, name, namespace=namespace)
    assert said(kinds.BY_NAME[kind], found) == []
    head = policies.head(found)
    given = {
        direction: tuple(policies.rules(found, direction))
        for direction in ("ingress", "egress")
        if head.rules(direction) is not None
    }
    return structs.replace(head, **given)


def ingress(rule: dict[str, Any], namespace: str = "") -> PolicyRule:
    """One rule, its services where they may be."""
    far = "egress" if "services" in rule.get("destination", {}) else "ingress"
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    found = policy(kind, {far: [{"action": "Allow", **rule}]}, "a", namespace)
    (converted,) = found.rules(far) or ()
    return converted


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_policy_becomes(case: Case) -> None:
    given = case.given
    if "rules" in given:
        found = [ingress(rule, given.get("namespace", "")) for rule in given["rules"]]
        lines = [rule_text(structs.replace(rule, number=number)) for number, rule in enumerate(found)]
    else:
        one = policy(given["kind"], given["spec"], **given["metadata"])
        lines = [head_text(one), *direction_lines(one)]
    assert "\n".join(lines) == case.expected


def test_rules_are_numbered_as_they_stand() -> None:
    found = policy("GlobalNetworkPolicy", {"ingress": [{"action": "Allow"}] * 3}, "a")
    assert [rule.number for rule in found.ingress or ()] == [0, 1, 2]


def test_identities_of_sets_are_calicos() -> None:
    """Those of services are from Calico's own rule_scanner_test.go."""
    out = ingress({"destination": {"services": {"name": "svc", "namespace": "default"}}})
    back = ingress({"source": {"services": {"name": "svc", "namespace": "default"}}})
    assert [each.id for each in out.destination.sets] == ["svc:Jhwii46PCMT5NlhWsUqZmv7al8TeHFbNQMhoVg"]
    assert [each.id for each in back.source.sets] == ["svcnoport:T03S_6hogdrGKrNFBcbKTFsH_uKwDHEo8JddOg"]


def test_the_identity_of_a_named_port_is_made_of_its_selectors() -> None:
    found = ingress({"destination": {"selector": "a == 'b'", "ports": ["http", 80]}, "protocol": "TCP"})
    (selected,) = found.destination.sets
    (named,) = found.destination.named_ports
    assert selected == SelectorSet(parse("a == 'b'").id, 'a == "b"')
    assert named.id == "n:giMFYSw5poQ6yIr5HFpqHp51MajefTbF1b7atg"
    assert named == EndpointSet(id=named.id, selector='a == "b"', protocol=6, port="http")


def test_a_sets_identity_is_that_of_its_text() -> None:
    """Also where the text says `!!`, which a parser reads as nothing."""
    found = ingress({"source": {"selector": "a == 'b'", "notSelector": "!has(c)"}})
    (selected,) = found.source.sets
    assert selected.selector == '(a == "b" && !!has(c))'
    assert parse(selected.selector) == Selector(parse("a == 'b' && has(c)").expression)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("kns.default", ["0 allow"]),
        ("projectcalico-default-allow", ["0 allow"]),
        ("ksa.default.robot", []),
    ],
)
def test_profiles_without_an_object(name: str, rules: list[str]) -> None:
    found = policies.profile(name, None)
    assert found.name == name
    assert [rule_text(rule) for rule in found.ingress] == rules
    assert [rule_text(rule) for rule in found.egress] == rules


def test_a_profiles_object_says_its_rules() -> None:
    spec = {"ingress": [{"action": "Deny", "source": {"selector": "has(a)"}}, {"action": "Allow"}]}
    found = policies.profile("kns.default", made(profiles.KIND, spec, "kns.default"))
    assert [rule_text(rule) for rule in found.ingress] == ["0 deny from {has(a)}", "1 allow"]
    assert found.egress == ()


IPV4, IPV6, MIXED = ["10.0.0.0/8"], ["fd00::/8"], ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("rule", "families"),
    [
        ({}, (4, 6)),
        ({"ipVersion": 6}, (6,)),
        ({"source": {"nets": IPV4}}, (4,)),
        ({"destination": {"notNets": IPV6}}, (6,)),
        ({"source": {"nets": IPV4}, "ipVersion": 4}, (4,)),
        ({"source": {"selector": "has(a)"}, "protocol": "ICMP"}, (4, 6)),
    ],
)
def test_the_families_of_a_rule(rule: dict[str, Any], families: tuple[int, ...]) -> None:
    assert ingress(rule).families((4, 6)) == families
    assert ingress(rule).families((4,)) == tuple(family for family in families if family == 4)


def test_the_sequence_of_policies_of_one_order_is_by_their_plain_names() -> None:
    first, second, third = (
        policy("NetworkPolicy", {"order": 1}, name, "shop") for name in ("default.a", "b", "default.c")
    )
    assert sorted([third, second, first], key=lambda each: each.sequence) == [first, second, third]
