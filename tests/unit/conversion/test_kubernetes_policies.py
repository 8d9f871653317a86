"""Kubernetes' policies as Policy. kubernetes_policies.txt holds the cases, and what each becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from calipy.conversion import kubernetes_policies
from calipy.model.policies import Policy, PolicyId
from calipy.resources.kubernetes_network_policies import KIND
from tests.unit.conversion.policy_texts import Case, cases, direction_lines, head_text, rule_text
from tests.unit.resources.objects import made, said

CASES = list(cases(Path(__file__).with_name("kubernetes_policies.txt")))


def policy(spec: dict[str, Any]) -> Policy:
    """An object that is right, with all its rules."""
    found = made(KIND, {"podSelector": {}, **spec}, "a", namespace="default")
    assert said(KIND, found) == []
    head = kubernetes_policies.head(found)
    given = {
        direction: tuple(kubernetes_policies.rules(found, direction))
        for direction in ("ingress", "egress")
        if head.rules(direction) is not None
    }
    return structs.replace(head, **given)


def short(text: str) -> str:
    """Calico's label of pods, and the namespace's restriction, by short words."""
    text = text.replace('projectcalico.org/orchestrator == "k8s"', "k8s")
    head, *rest = text.split('{(projectcalico.org/namespace == "default" && ')
    return head + "".join("{default: " + part.replace(")}", "}", 1) for part in rest)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_policy_becomes(case: Case) -> None:
    if "spec" in case.given:
        found = policy(case.given["spec"])
        lines = [head_text(found).removeprefix("knp/default/a tier default order 1000 "), *direction_lines(found)]
    else:
        found = policy(case.given)
        lines = [rule_text(rule) for rule in found.rules("ingress" if "ingress" in case.given else "egress") or ()]
    assert "\n".join(map(short, lines)) == case.expected


def test_tier_order_and_identity_are_calicos() -> None:
    found = policy({})
    assert (found.id, found.tier, found.order) == (PolicyId("knp", "default", "a"), "default", 1000.0)
    assert not found.everywhere
