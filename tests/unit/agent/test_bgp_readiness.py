"""When BGP keeps a node from being ready (Calico's rule)."""

from __future__ import annotations

from typing import Literal

import pytest

from calipy.agent.bgp import readiness
from calipy.explain.report import SessionReport


def session(name: str, state: Literal["up", "down"], *, stale: bool = False) -> SessionReport:
    reason = "" if state == "up" else "refused"
    return SessionReport(
        name=name, peer="10.9.0.2", kind="mesh", as_number=64512, family=4, state=state, reason=reason, stale=stale
    )


UP, DOWN = session("A", "up"), session("B", "down")


@pytest.mark.parametrize(
    ("sessions", "age_s", "said"),
    [
        ((), 0, ""),
        ((), 99, ""),
        ((UP,), 0, ""),
        ((UP, DOWN), 10, "sessions not up: B (refused)"),
        ((UP, DOWN), 31, ""),
        ((DOWN,), 31, "no session is up: B (refused)"),
        ((session("A", "up", stale=True),), 10, "sessions not up: A has not yet told all again"),
        ((session("A", "up", stale=True),), 31, ""),
    ],
)
def test_readiness(sessions: tuple[SessionReport, ...], age_s: float, said: str) -> None:
    assert readiness(sessions, age_s) == said
