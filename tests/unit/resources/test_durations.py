"""Go durations."""

from __future__ import annotations

import re

import pytest

from calipy.resources.durations import PATTERN, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0s", 0), ("90s", 90), ("1m30s", 90), ("1.5h", 5400), ("300ms", 0.3), ("1h2m3.5s", 3723.5),
        ("2us", 2e-6), ("2µs", 2e-6), ("5ns", 5e-9), (".5s", 0.5), ("1.s", 1), ("-3s", -3), ("+3s", 3),
    ],
)  # fmt: skip
def test_a_duration(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)
    assert (re.search(PATTERN, text) is not None) == (seconds >= 0)


@pytest.mark.parametrize("text", ["", "90", "s", "1 m", "1m 30s", "1d", "90s!", "--1s", "1h30", "∞s", "٣s"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 90s"):
        parse_seconds(text)
    assert re.search(PATTERN, text) is None
