"""`node status`: what a node's agent says of itself, in calicoctl's tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from calipy.explain.report import NodeReport, SessionReport

_TYPES = {"mesh": "node-to-node mesh", "global": "global", "node": "node specific"}
_HEADINGS = ("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO")
_ONE_DAY_S = 86_400


def lines(report: NodeReport, now: datetime) -> Iterator[str]:
    """Whether the agent works and what it complains of, then the sessions of each IP version. `now`: local time."""
    yield "Calico process is running."
    yield from _complaints(report)
    for family in (4, 6):
        sessions = [session for session in report.sessions if session.family == family]
        yield ""
        yield f"IPv{family} BGP status"
        if sessions:
            yield from table(_HEADINGS, [_row(session, now) for session in sessions])
        else:
            yield f"No IPv{family} peers found."
    yield ""


def _complaints(report: NodeReport) -> Iterator[str]:
    if not report.in_sync:
        yield "The kernel doesn't hold everything yet."
    if report.obstacle:
        yield f"Pods can't be attached: {report.obstacle}"
    for reporter, words in report.problems.items():
        yield f"Not ready: {reporter}: {words}"
    for reporter, words in report.degraded.items():
        yield f"Degraded: {reporter}: {words}"
    for name, reason in report.refused.items():
        yield f"Refused: {name}: {reason}"


def _row(session: SessionReport, now: datetime) -> tuple[str, ...]:
    up = session.state == "up"
    state = "Established" if up else "Connect" if session.state == "connected" else "Idle"
    info = " ".join(part for part in (state, session.reason) if part)
    return session.peer, _TYPES[session.kind], "up" if up else "start", _since(session, now), info


def _since(session: SessionReport, now: datetime) -> str:
    """As BIRD says it: the time of the last day, the date before that."""
    began = now - timedelta(seconds=session.since_s)
    return began.strftime("%H:%M:%S" if session.since_s < _ONE_DAY_S else "%Y-%m-%d")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells in frames of +, - and |; headings in the middle of their columns, the others at their left."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    yield rule
    yield _framed(_middle(cell, width) for cell, width in zip(headings, widths, strict=True))
    yield rule
    for row in rows:
        yield _framed(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    yield rule


def _framed(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " for cell in cells) + "|"


def _middle(text: str, width: int) -> str:
    return (" " * ((width - len(text)) // 2) + text).ljust(width)
