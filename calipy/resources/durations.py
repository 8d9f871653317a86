"""Go durations, as Kubernetes objects spell them: `90s`, `1m30s`, `1.5h`, `300ms`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from calipy.resources.metadata import Problem

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
PATTERN = r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+)$"
"""What an API server asks of those of zero and more."""


def parse_seconds(text: str) -> float:
    """Seconds of a Go duration. Raises ValueError naming the text."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, position = 0.0, 0
    for part in _PART.finditer(rest):
        if part.start() != position:
            break
        total += float(part[1]) * _UNITS_S[part[2]]
        position = part.end()
    if not rest or position != len(rest):
        raise ValueError(f"{text!r} is not a duration; write 90s, 1m30s, 1.5h or 300ms")
    return sign * total


def duration_problems(field: str, text: str | None) -> Iterator[Problem]:
    """What is wrong with the duration in a field of an object; None is none."""
    if text is None:
        return
    try:
        seconds = parse_seconds(text)
    except ValueError:
        yield Problem(field, text, "is not a duration", "write 90s, 1m30s, 1.5h or 300ms")
        return
    if seconds < 0:
        yield Problem(field, text, "is less than nothing", "write 0s or more")
