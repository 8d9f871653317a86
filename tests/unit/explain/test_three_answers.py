"""Evaluator and walk give one answer: on each row of the table, and in worlds that hypothesis makes up.

The kernel is the third: `netns/test_policy_cases.py`.
"""

from __future__ import annotations

import pytest

from tests.cases.loading import Case, cases
from tests.cases.views import answer, views


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_compiled_rules_give_each_row_s_verdict_for_its_reason(case: Case) -> None:
    problems = []
    for scene in case.scenes:
        nodes = views(scene.world)
        problems += [row.problem(answer(nodes, row.packet)) for row in scene.rows]
    assert not any(problems), "\n".join(filter(None, problems))
