"""Evaluator and walk give one answer: on each row of the table, and in worlds that hypothesis makes up.

The kernel is the third: `netns/test_policy_cases.py`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from calipy.explain.reference import evaluate
from calipy.explain.verdicts import Verdict
from tests.cases.loading import Case, cases
from tests.cases.made_up import MadeUp, story, worlds
from tests.cases.mutations import survey
from tests.cases.views import answer, views
from tests.effort import at_effort

EXAMPLES = at_effort(quick=40, whole=4000, long=40_000)
SHARE = at_effort(quick=16, whole=1, long=1)
"""One of so many mistakes is tried."""


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_compiled_rules_give_each_row_s_verdict_for_its_reason(case: Case) -> None:
    problems = []
    for scene in case.scenes:
        nodes = views(scene.world)
        problems += [row.problem(answer(nodes, row.packet)) for row in scene.rows]
    assert not any(problems), "\n".join(filter(None, problems))


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)
@given(worlds())
def test_both_agree_in_any_world(made_up: MadeUp) -> None:
    world = made_up.world
    nodes = views(world)
    for packet in made_up.packets:
        expected, found = evaluate(world, packet), answer(nodes, packet)
        if told(expected) != told(found):
            words = f"the compiled rules say {told(found)}, the specifications {told(expected)}, where"
            pytest.fail(f"{words}\n\n{story(made_up.objects, packet, expected)}", pytrace=False)


def told(verdict: Verdict) -> tuple[bool, list[str]]:
    return verdict.allowed, [str(each) for each in (verdict.egress, verdict.ingress) if each is not None]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_each_mistake_that_means_something_is_caught_by_a_row(case: Case) -> None:
    """A mistake that no row catches must mean nothing to any packet. What means nothing is: the denial at the end
    behind a profile that allows all; the order of rules that no packet can both match; a pod's own address in a set
    that only decides what reaches that pod, for its packets to itself never leave it; a log; a mark cleared that
    nothing before has set; a set of one family in a rule for the other's ICMP; whatever stands behind rules that decide
    everything."""
    found = survey(case, SHARE)
    assert found.missed == {}
    if SHARE == 1:
        assert len(found.caught) > len(found.meaningless), "the rows look at too little"
