"""Steps of a longer job: a line that moves on a terminal, a plain line with its duration elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

from calipy.console.terminals import is_terminal, rich_console, shows

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.spinner import Spinner


class Step:
    """One step at work."""

    def __init__(self, text: str, started_s: float) -> None:
        self.text = text
        self.started_s = started_s
        self.detail = ""

    def say(self, detail: str) -> None:
        """What it is at just now: beside the step while it runs and, the last of them, behind it when it is done."""
        self.detail = detail


class Steps:
    """The steps of one job, on one stream. They may run one after another, inside each other, or at once; each gets its
    line when it ends. `clock` gives seconds."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._display: _Plain | _Moving = _Moving(stream, clock) if is_terminal(stream) else _Plain(stream)
        self.times: list[tuple[str, float]] = []
        """Text and seconds of each step that has ended, well or not, in that order."""

    @asynccontextmanager
    async def step(self, text: str) -> AsyncIterator[Step]:
        """A step from here to the end of the block. One that raises is marked as failed, one that is cancelled as
        stopped; the exception goes on."""
        step = Step(text, self._clock())
        self._display.begin(step)
        ending = "failed"
        try:
            yield step
            ending = "ok"
        except (asyncio.CancelledError, KeyboardInterrupt):
            ending = "stopped"
            raise
        finally:
            seconds = self._clock() - step.started_s
            self.times.append((text, seconds))
            self._display.end(step, ending, seconds)


class _Plain:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, step: Step) -> None:
        """Nothing: a log wants one line a step."""

    def end(self, step: Step, ending: str, seconds: float) -> None:
        detail = f" ({step.detail})" if step.detail else ""
        self._stream.write(f"{ending:7} {duration(seconds):>7}  {step.text}{detail}\n")
        self._stream.flush()


_MARKS = {"ok": ("✓", "green"), "failed": ("✗", "bold red"), "stopped": ("■", "yellow")}


class _Moving:
    """rich's live display: its thread turns the spinners, also while the event loop is busy."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._console: Console = rich_console(stream)
        self._unicode = shows(stream, "✓✗■⠋")
        self._clock = clock
        self._running: dict[Step, Spinner] = {}
        self._live: Live | None = None

    def begin(self, step: Step) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        spinner = Spinner("dots" if self._unicode else "line", style="cyan")
        self._running = {**self._running, step: spinner}
        if self._live is None:
            self._live = Live(
                console=self._console, get_renderable=self._lines, refresh_per_second=10, transient=True,
                redirect_stderr=False,
            )  # fmt: skip
            self._live.start()

    def end(self, step: Step, ending: str, seconds: float) -> None:
        from rich.text import Text

        self._running = {other: spinner for other, spinner in self._running.items() if other is not step}
        if not self._running and self._live is not None:
            self._live.stop()
            self._live = None
        mark, style = _MARKS[ending]
        detail = f"  {step.detail}" if step.detail else ""
        done = (f"  {duration(seconds)}", "cyan")
        line = Text.assemble((mark if self._unicode else ending, style), " ", step.text, (detail, "dim"), done)
        self._console.print(line)

    def _lines(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        lines: list[RenderableType] = []
        for step, spinner in self._running.items():
            seconds = self._clock() - step.started_s
            detail = f"  {step.detail}" if step.detail else ""
            spinner.update(text=Text.assemble(step.text, (detail, "dim"), f"  {duration(seconds)}"))
            lines.append(spinner)
        return Group(*lines)


def duration(seconds: float) -> str:
    """`12 ms`, `1.23 s`, `2 min 5 s`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
