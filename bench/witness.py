"""Real packets between pods, for measurements of policy: one pod tells, others hear; afterwards it is looked up which
arrived. The program is the tests' prober."""

from __future__ import annotations

import asyncio
import bisect
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

_SOURCE = Path(__file__).resolve().parent.parent / "tests" / "lab" / "prober.c"
PORT = 7777


async def build(folder: Path) -> Path:
    """The program, compiled."""
    program = folder / "prober"
    compiler = await asyncio.create_subprocess_exec("gcc", "-O2", "-static", "-o", str(program), str(_SOURCE))
    if await compiler.wait():
        raise RuntimeError(f"{_SOURCE} can't be compiled")
    return program


class Traffic:
    """Datagrams from one namespace to pods in others, from `start` to `stop`; each is the first of its flow. Times are
    seconds of CLOCK_MONOTONIC."""

    def __init__(self, program: Path, source: str, targets: Mapping[str, tuple[str, str]], rate_hz: float) -> None:
        """`targets`: name -> its namespace's path and its address."""
        self._program, self._source, self._targets, self._rate_hz = str(program), source, targets, rate_hz
        self._voices: list[asyncio.subprocess.Process] = []
        self._sent: dict[str, list[float]] = {}
        self._came: dict[str, list[bool]] = {}

    async def __aenter__(self) -> Traffic:
        heard = [word for netns, address in self._targets.values() for word in ("--netns", netns, f"{address}:{PORT}")]
        told = [word for name, (_, address) in self._targets.items() for word in ("--pair", f"{name}={address}:{PORT}")]
        rate = ("--rate", str(self._rate_hz))
        await self._begin(self._program, "hear", *heard)
        await self._begin("nsenter", f"--net={self._source}", self._program, "tell", "1", *rate, *told)
        return self

    async def __aexit__(self, *_: object) -> None:
        hearer, teller = self._voices
        told = await self._end(teller)
        arrived = {int(number) for _, number, _ in await self._end(hearer)}
        self._sent = {name: [] for name in self._targets}
        self._came = {name: [] for name in self._targets}
        for number, name, before, _ in told:
            self._sent[name].append(int(before) / 1e9)
            self._came[name].append(int(number) in arrived)

    async def _begin(self, *argv: str) -> None:
        voice = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, limit=1 << 28)
        self._voices.append(voice)
        assert voice.stdout is not None
        if await voice.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{argv[:4]} does not start")

    async def _end(self, voice: asyncio.subprocess.Process) -> Sequence[list[str]]:
        voice.send_signal(signal.SIGTERM)
        said, _ = await voice.communicate()
        return [line.split() for line in said.decode().splitlines()]

    def settled_ms(self, since_s: float, until_s: float, *, passes: bool, names: Sequence[str] = ()) -> float:
        """Milliseconds from `since_s` until all packets to all of `names` (empty: all) pass, or none does; looked at up
        to `until_s`. Raises RuntimeError where that never comes."""
        return max(self._settled_s(name, since_s, until_s, passes) - since_s for name in names or self._targets) * 1e3

    def _settled_s(self, name: str, since_s: float, until_s: float, passes: bool) -> float:
        sent, came = self._sent[name], self._came[name]
        first, end = bisect.bisect_left(sent, since_s), bisect.bisect_left(sent, until_s)
        last = next((index for index in range(end - 1, first - 1, -1) if came[index] != passes), first - 1)
        if end - last < 2:
            raise RuntimeError(f"packets to {name} {'are lost' if passes else 'pass'} up to the end")
        return max(since_s, sent[last + 1])

    def wrong(self, passes: Mapping[str, bool]) -> int:
        """How many packets did not fare so, of all that were sent."""
        return sum(came != passes[name] for name, fates in self._came.items() for came in fates)
