"""NetworkPolicy and GlobalNetworkPolicy of Calico: what is right and what is wrong beside their rules."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources import global_network_policies, network_policies
from calipy.resources.metadata import ObjectMeta, Refused, name_problems
from tests.unit.resources.objects import made, said

NP, GNP = network_policies.KIND, global_network_policies.KIND
BOTH = pytest.mark.parametrize("kind", [NP, GNP], ids=lambda kind: kind.name)

RIGHT: list[dict[str, Any]] = [
    {},
    {"tier": "security", "order": -1.5},
    {"order": 0, "selector": "", "serviceAccountSelector": "role == 'api'"},
    {"selector": "all()", "types": ["Ingress", "Egress"]},
    {"selector": "a == 'global('", "types": []},
    {"performanceHints": ["AssumeNeededOnEveryNode"]},
    {"ingress": [{"action": "Log"}, {"action": "Pass"}] * 512, "types": ["Egress"]},
]


@pytest.mark.parametrize("spec", RIGHT, ids=lambda spec: str(spec)[:70])
@BOTH
def test_right(kind: Any, spec: dict[str, Any]) -> None:
    assert said(kind, made(kind, spec, labels={"a": "b"}, annotations={"example.com/a": "..."})) == []


GLOBAL = "global() has no meaning here; it belongs into a rule's namespaceSelector, alone"
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"tier": "a.b"},
        ["spec.tier: 'a.b': can't be a tier's name; write the name of a Tier, or leave it out"],
    ),
    (
        {"tier": "a" * 64},
        [f"spec.tier: '{'a' * 64}': can't be a tier's name; write the name of a Tier, or leave it out"],
    ),
    ({"selector": "global()"}, [f"spec.selector: 'global()': {GLOBAL}"]),
    (
        {"serviceAccountSelector": "has(a) && global()"},
        [f"spec.serviceAccountSelector: 'has(a) && global()': {GLOBAL}"],
    ),
    (
        {"selector": "a ==", "serviceAccountSelector": "a" * 1025},
        [
            "spec.selector: 'a ==': column 5: 'the end' where a string in quotes was expected; "
            "see Calico's selector syntax",
            f"spec.serviceAccountSelector: '{'a' * 79}...: has 1025 characters; 1024 at most",
        ],
    ),
    ({"types": ["Egress", "Egress"]}, ["spec.types: ['Egress']: is there twice; write each once"]),
    (
        {"performanceHints": ["AssumeNeededOnEveryNode"] * 2},
        ["spec.performanceHints: ['AssumeNeededOnEveryNode']: is there twice; write each once"],
    ),
    (
        {"ingress": [{"action": "Allow"}] * 1025, "egress": [{"action": "Allow"}] * 1025},
        [
            "spec.ingress: '1025 entries': are too many; 1024 at most",
            "spec.egress: '1025 entries': are too many; 1024 at most",
        ],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), WRONG, ids=[str(row[0])[:70] for row in WRONG])
@BOTH
def test_wrong(kind: Any, spec: dict[str, Any], problems: list[str]) -> None:
    assert said(kind, made(kind, spec)) == problems


HOSTS = "is for host endpoints, which CalIPy doesn't have yet; leave it out, and keep the policy to workloads"
GLOBAL_WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"namespaceSelector": "global()"}, [f"spec.namespaceSelector: 'global()': {GLOBAL}"]),
    (
        {"namespaceSelector": "x"},
        [
            "spec.namespaceSelector: 'x': column 2: 'the end' where ==, !=, in, not in, contains, starts with or ends "
            "with was expected; see Calico's selector syntax"
        ],
    ),
    (
        {"doNotTrack": True, "preDNAT": True, "applyOnForward": True},
        [f"spec.doNotTrack: True: {HOSTS}", f"spec.preDNAT: True: {HOSTS}", f"spec.applyOnForward: True: {HOSTS}"],
    ),
    ({"doNotTrack": False, "preDNAT": False, "applyOnForward": False, "namespaceSelector": "team == 'a'"}, []),
]


@pytest.mark.parametrize(("spec", "problems"), GLOBAL_WRONG, ids=[str(row[0])[:70] for row in GLOBAL_WRONG])
def test_what_only_global_policies_have(spec: dict[str, Any], problems: list[str]) -> None:
    assert said(GNP, made(GNP, spec)) == problems


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"ingress": [{}]}, "spec.ingress[0].action: '': is missing"),
    ({"ingress": [{"action": "allow"}]}, "spec.ingress[0].action: 'allow': Invalid enum value 'allow'"),
    ({"types": ["ingress"]}, "spec.types[0]: 'ingress': Invalid enum value 'ingress'"),
    ({"order": "first"}, "spec.order: 'first': Expected `float | null`, got `str`"),
    ({"egress": [{"action": "Deny", "ipVersion": "4"}]}, "spec.egress[0].ipVersion: '4': Expected `int | null`, got"),
    ({"performanceHints": ["Faster"]}, "spec.performanceHints[0]: 'Faster': Invalid enum value 'Faster'"),
]


@pytest.mark.parametrize(("spec", "said"), UNREADABLE, ids=[row[1] for row in UNREADABLE])
@BOTH
def test_unreadable(kind: Any, spec: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as raised:
        made(kind, spec)
    assert str(raised.value).startswith(f"{kind.name}/a is refused: {said}")


LABEL = "letters, digits, -, _ and ., 63 at most, a letter or digit at both ends"


@BOTH
def test_labels_and_annotations_are_judged_too(kind: Any) -> None:
    value = made(kind, {}, labels={"-": "x y"}, annotations={"a b": ""})
    name = f"{LABEL}; before it, at will, a DNS name and /"
    assert said(kind, value) == [
        f"metadata.labels: '-': can't be the name of a label; {name}",
        f"metadata.labels[-]: 'x y': can't be the value of a label; {LABEL}, or nothing at all",
        f"metadata.annotations: 'a b': can't be the name of an annotation; {name}",
    ]


@pytest.mark.parametrize("name", ["a", "a-1", "security.a", "default.a", "a" * 253])
@BOTH
def test_a_name_is_one_label_or_two(kind: Any, name: str) -> None:
    namespace = "one" if kind.namespaced else ""
    assert list(name_problems(kind, ObjectMeta(name=name, namespace=namespace))) == []


@pytest.mark.parametrize("name", ["knp.default.a", "t.h.i.ng", "tHiNg", "a.", ".a", "t~s", "a" * 254])
@BOTH
def test_what_is_no_name(kind: Any, name: str) -> None:
    namespace = "one" if kind.namespaced else ""
    found = list(name_problems(kind, ObjectMeta(name=name, namespace=namespace)))
    assert [problem.field for problem in found] == ["metadata.name"]
