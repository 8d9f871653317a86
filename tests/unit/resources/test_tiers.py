"""Tiers, sets and profiles: what is right and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources import global_network_sets, network_sets, profiles, tiers
from calipy.resources.metadata import Refused, accept
from calipy.resources.tiers import BUILT_IN, shown_order
from tests.unit.resources.objects import made, said

TIER, PROFILE = tiers.KIND, profiles.KIND

# name | spec | each problem
TIERS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("security", {}, []),
    ("security", {"order": 99.5, "defaultAction": "Pass"}, []),
    ("default", {"order": 1000000, "defaultAction": "Deny"}, []),
    ("default", {"order": 1e6}, []),
    ("kube-admin", {"order": 1000, "defaultAction": "Pass"}, []),
    ("kube-baseline", {"order": 10000000, "defaultAction": "Pass"}, []),
    ("default", {}, ["spec.order: '': of the built-in tier default can't be changed; write 1000000"]),
    (
        "default",
        {"order": 7, "defaultAction": "Pass"},
        [
            "spec.order: '7': of the built-in tier default can't be changed; write 1000000",
            "spec.defaultAction: 'Pass': of the built-in tier default can't be changed; write Deny",
        ],
    ),
    (
        "kube-admin",
        {"order": 1000},
        ["spec.defaultAction: 'Deny': of the built-in tier kube-admin can't be changed; write Pass"],
    ),
    (
        "kube-baseline",
        {"order": 10000001, "defaultAction": "Pass"},
        ["spec.order: '10000001': of the built-in tier kube-baseline can't be changed; write 10000000"],
    ),
]


@pytest.mark.parametrize(("name", "spec", "problems"), TIERS, ids=[f"{row[0]} {row[1]}" for row in TIERS])
def test_tiers(name: str, spec: dict[str, Any], problems: list[str]) -> None:
    assert said(TIER, made(TIER, spec, name)) == problems


def test_the_built_in_tiers_are_right() -> None:
    assert list(BUILT_IN) == ["kube-admin", "default", "kube-baseline"]
    for tier in BUILT_IN.values():
        assert accept(TIER, tier) is tier


def test_a_tier_allows_nothing_by_default() -> None:
    with pytest.raises(Refused, match=r"spec\.defaultAction: 'Allow': Invalid enum value"):
        made(TIER, {"defaultAction": "Allow"})


@pytest.mark.parametrize(("order", "shown"), [(None, ""), (1e6, "1000000"), (99.5, "99.5"), (-3.0, "-3")])
def test_how_an_order_is_shown(order: float | None, shown: str) -> None:
    assert shown_order(order) == shown


NEITHER = "is neither an address nor a CIDR; write 192.0.2.1 or 192.0.2.0/24"
SETS: list[tuple[list[str], list[str]]] = [
    ([], []),
    (["10.0.0.1", "11.0.0.0/8", "dead:beef::", "dead:beef::/96", "10.1.2.3/8", "2001:DB8::1/32"], []),
    (
        ["garbage", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::1%eth0", "", "10.0.0.1/"],
        [
            f"spec.nets[0]: 'garbage': {NEITHER}",
            f"spec.nets[1]: '10.0.0.0/33': {NEITHER}",
            f"spec.nets[2]: '10.0.0.0/255.0.0.0': {NEITHER}",
            f"spec.nets[3]: 'fe80::1%eth0': {NEITHER}",
            f"spec.nets[4]: '': {NEITHER}",
            f"spec.nets[5]: '10.0.0.1/': {NEITHER}",
        ],
    ),
    (["10.0.0.1", "10.0.0.2", "10.0.0.1"], ["spec.nets[2]: '10.0.0.1': is there twice; write each once"]),
]


@pytest.mark.parametrize(("nets", "problems"), SETS, ids=[str(row[0])[:70] for row in SETS])
@pytest.mark.parametrize("kind", [network_sets.KIND, global_network_sets.KIND], ids=lambda kind: kind.name)
def test_sets(kind: Any, nets: list[str], problems: list[str]) -> None:
    assert said(kind, made(kind, {"nets": nets})) == problems


@pytest.mark.parametrize("kind", [network_sets.KIND, global_network_sets.KIND], ids=lambda kind: kind.name)
def test_calicos_own_label_and_too_many_nets_of_a_set(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_sets, "MOST_NETS", 1)
    value = made(kind, {"nets": ["10.0.0.1", "10.0.0.2"]}, labels={"projectcalico.org/namespace": "a"})
    assert said(kind, value) == [
        "metadata.labels[projectcalico.org/namespace]: 'a': is Calico's own label; choose another name",
        "spec.nets: '2 entries': are too many; 1 at most",
    ]


@pytest.mark.parametrize(
    "kind", [TIER, PROFILE, network_sets.KIND, global_network_sets.KIND], ids=lambda kind: kind.name
)
def test_labels_and_annotations_are_judged_too(kind: Any) -> None:
    found = said(kind, made(kind, {}, labels={"a": "!"}, annotations={"/": ""}))
    assert [problem.partition(";")[0] for problem in found] == [
        "metadata.labels[a]: '!': can't be the value of a label",
        "metadata.annotations: '/': can't be the name of an annotation",
    ]


def test_profiles() -> None:
    rules = [{"action": "Allow"}, {"action": "Deny", "ipVersion": 7}]
    value = made(PROFILE, {"ingress": rules, "egress": rules, "labelsToApply": {"a/b": "c", "d": "-"}})
    assert said(PROFILE, value) == [
        "spec.ingress[1].ipVersion: 7: is no IP version; write 4 or 6, or leave it out",
        "spec.egress[1].ipVersion: 7: is no IP version; write 4 or 6, or leave it out",
        "spec.labelsToApply[d]: '-': can't be the value of a label; letters, digits, -, _ and ., 63 at most, "
        "a letter or digit at both ends, or nothing at all",
    ]
