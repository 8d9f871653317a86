"""CalipyConfiguration: what is right, what is wrong, and who has the last word."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources.calipy_configurations import KIND, PolicyRecheck, policy_recheck
from calipy.resources.metadata import Refused
from tests.unit.resources.objects import made, said


@pytest.mark.parametrize("name", ["default", "node.n1"])
@pytest.mark.parametrize("spec", [{}, {"policyRecheck": "Enabled"}, {"policyRecheck": "Disabled"}], ids=str)
def test_right(name: str, spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec, name)) == []


def test_a_name_that_no_node_reads_is_wrong() -> None:
    problem = "metadata.name: 'n1': no node reads it; name it default or node.<node name>"
    assert said(KIND, made(KIND, {}, "n1")) == [problem]


@pytest.mark.parametrize("value", ["enabled", True, 1])
def test_another_value_is_refused_with_its_field(value: Any) -> None:
    with pytest.raises(Refused, match=r"CalipyConfiguration/default is refused: spec.policyRecheck: "):
        made(KIND, {"policyRecheck": value}, "default")


# of default | of node.n1 | of the environment | what holds on n1
MERGED: list[tuple[str | None, str | None, PolicyRecheck | None, str]] = [
    (None, None, None, "Disabled"),
    ("Enabled", None, None, "Enabled"),
    ("Enabled", "Disabled", None, "Disabled"),
    (None, "Enabled", None, "Enabled"),
    ("Disabled", "Disabled", "Enabled", "Enabled"),
    ("Enabled", "Enabled", "Disabled", "Disabled"),
]


@pytest.mark.parametrize(("default", "node", "environment", "held"), MERGED)
def test_the_nearest_to_the_node_holds(
    default: str | None, node: str | None, environment: PolicyRecheck | None, held: str
) -> None:
    others = [made(KIND, {"policyRecheck": "Enabled"}, "node.n2")]
    objects = [
        made(KIND, {"policyRecheck": value} if value else {}, name)
        for name, value in (("default", default), ("node.n1", node))
    ]
    assert policy_recheck("n1", [*others, *objects], environment) == held


def test_without_any_object_it_is_off() -> None:
    assert policy_recheck("n1", ()) == "Disabled"
