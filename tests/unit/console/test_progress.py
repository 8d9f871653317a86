"""Steps of a job: their lines and their times."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import pytest

from calipy.console.progress import Steps, duration


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_each_step_gets_one_line_with_its_duration() -> None:
    clock, stream = Clock(), io.StringIO()
    steps = Steps(stream, clock=clock)
    async with steps.step("three nodes") as step:
        step.say("n1")
        step.say("n3")
        clock.now_s += 0.25
    async with steps.step("sessions"):
        clock.now_s += 61
    assert stream.getvalue() == "ok       250 ms  three nodes (n3)\nok      1 min 1 s  sessions\n"
    assert steps.times == [("three nodes", 0.25), ("sessions", 61.0)]


async def test_a_step_that_raises_is_marked_and_the_error_goes_on() -> None:
    stream = io.StringIO()
    steps = Steps(stream, clock=Clock())
    with pytest.raises(ValueError, match="broken"):
        async with steps.step("agents"):
            raise ValueError("broken")
    assert stream.getvalue().startswith("failed ")
    assert [text for text, _ in steps.times] == ["agents"]


async def test_a_cancelled_step_is_stopped_not_failed() -> None:
    stream = io.StringIO()
    steps = Steps(stream, clock=Clock())
    with pytest.raises(asyncio.CancelledError):
        async with steps.step("agents"):
            raise asyncio.CancelledError
    assert stream.getvalue().startswith("stopped ")


def test_on_a_terminal_each_step_leaves_its_mark_also_when_two_run_at_once(on_terminal: Callable[..., str]) -> None:
    async def job(stream: io.TextIOWrapper) -> None:
        steps = Steps(stream, clock=Clock())
        async with steps.step("outer [of two]"):
            async with steps.step("inner") as inner:
                inner.say("n2")
            with pytest.raises(ValueError, match="x"):
                async with steps.step("wrong"):
                    raise ValueError("x")

    text = on_terminal(80, lambda stream: asyncio.run(job(stream)))
    for line in ("✓ inner  n2  0 ms", "✗ wrong  0 ms", "✓ outer [of two]  0 ms"):
        assert line in text, text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0124, "12 ms"), (0.9996, "1.00 s"), (59.9, "59.90 s"), (60, "1 min 0 s"), (3725, "62 min 5 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
