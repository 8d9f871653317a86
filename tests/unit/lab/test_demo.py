"""How the demonstration judges what it sees."""

from __future__ import annotations

import io

import pytest

from calipy.lab import demo
from calipy.lab.reachability import Probe

BLOCKED = {("a", "b")}


def probe(source, target, *, answered):
    return Probe(
        source=source, source_kind="pod", target=target, target_kind="pod", family=4, answered=answered,
        reason="" if answered else "no answer",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("probes", "good", "said"),
    [
        ([("a", "b", False), ("b", "a", True)], True, ""),
        ([("a", "b", True), ("b", "a", True)], False, "a -> b, IPv4: gets through, against the policy\n"),
        ([("a", "b", False), ("b", "a", False)], False, "b -> a, IPv4: no answer\n"),
        ([("b", "a", True)], False, ""),
    ],
)
def test_a_policy_is_obeyed_if_those_it_blocks_are_tried_and_blocked_and_no_others(probes, good, said):
    out = io.StringIO()
    found = [probe(source, target, answered=answered) for source, target, answered in probes]

    assert demo._obeyed(found, BLOCKED, out) == good
    assert out.getvalue() == said
