"""The packet prober (`prober.c`) for tests: built once, run inside namespaces, its findings as values."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

SOURCE = Path(__file__).with_name("prober.c")
PORT = 7777
_END_S = 5.0
"""For so long an ended prober may take to say what it has found; it waits 1 s for answers that are on their way."""

Run = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]
"""Runs a command inside a namespace, its standard output a pipe."""


class Lost(msgspec.Struct, frozen=True):
    """A datagram without an answer."""

    number: int
    sent_at_s: float
    """CLOCK_MONOTONIC."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one pair's datagrams."""

    sent: int
    received: int
    lost: int
    late: int
    """Answered after more than a second; these are received, not lost."""
    duplicates: int
    reordered: int
    ttl_changes: int
    """How often an answer's TTLs differed from those of the one before: another way was taken."""
    errors: int
    """Sendings that the kernel refused; they count as sent."""
    last_error: str
    ttls_there: tuple[int, ...]
    """TTLs (hop limits) with which datagrams came to the far end."""
    ttls_back: tuple[int, ...]
    """The same of answers, here."""
    longest_gap_ms: float
    """The longest time without an answer, from the first sending to the last."""
    first_lost: tuple[Lost, ...]
    """The first 20."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a prober prints."""

    stall_ms: float
    """The longest time in which the prober itself had no turn: what it sends then comes in a burst."""
    pairs: dict[str, Findings]


def build(folder: Path) -> Path:
    """Compiles the prober, static: it runs in any mount namespace that sees its file. The path of the program."""
    program = folder / "prober"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run(["gcc", *options, "-o", str(program), str(SOURCE)], check=True)
    return program


class Echo(AbstractContextManager["Echo"]):
    """Answers on an address for as long as the context lasts."""

    def __init__(self, run: Run, program: Path, address: str, port: int = PORT) -> None:
        self._process = run([str(program), "echo", address, str(port)])
        _wait_ready(self._process)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it; fine where it has ended."""
        _end(self._process, signal.SIGKILL)


class Probe(AbstractContextManager["Probe"]):
    """Sends from its beginning until `stop`, or the end of the context. `pairs`: name -> the address of an echo (with
    its port where it isn't PORT)."""

    def __init__(self, run: Run, program: Path, pairs: Mapping[str, str], *, rate_hz: float = 1000) -> None:
        arguments = [str(program), "send", "--rate", str(rate_hz)]
        for name, target in pairs.items():
            arguments += ["--pair", f"{name}={_with_port(target)}"]
        self._process = run(arguments)
        _wait_ready(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._process, signal.SIGKILL)

    def stop(self) -> Report:
        """Ends it, and what it has found. Raises AssertionError where it says nothing."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=_END_S)
        if self._process.returncode:
            raise AssertionError(f"the prober ended with {self._process.returncode}")
        return msgspec.json.decode(said, type=Report)


def _with_port(target: str) -> str:
    if target.startswith("[") or target.count(":") == 1:
        return target
    return f"[{target}]:{PORT}" if ":" in target else f"{target}:{PORT}"


def _wait_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != b"ready\n":
        _end(process, signal.SIGKILL)
        raise AssertionError(f"{' '.join(map(str, process.args))} is not ready: {line!r}")  # type: ignore[arg-type]


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
