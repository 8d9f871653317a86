"""Clusters to measure on: three nodes with agents and ExaBGP, IPv4, no encapsulation; a node's processes as the host
sees them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from calipy.console.progress import Steps
from calipy.lab import lifecycle
from calipy.lab.cluster import Lab
from calipy.lab.machines import Machine
from calipy.lab.topology import Plan

_NAME = "calipy-bl"
STEPS = Steps(sys.stderr)
"""What a measurement is at just now."""


def _left_over() -> Iterator[Path]:
    """The labs of runs whose process is gone."""
    for folder in Path("/run").glob(f"{_NAME}*"):
        pid = folder.name.removeprefix(_NAME)
        if pid.isdecimal() and not Path("/proc", pid).exists():
            yield folder


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    """A cluster whose nodes are ready and whose sessions are up; removed at the end, and by the next run if this one
    crashes."""
    for old in _left_over():
        await lifecycle.down(old)
    folder = Path(f"/run/{_NAME}{os.getpid()}")
    made = await lifecycle.up(folder, Plan(families="ipv4"), STEPS)
    try:
        yield made
    finally:
        async with STEPS.step("the lab removed again"):
            await lifecycle.down(folder)


async def make_namespaces(machine: Machine, prefix: str, count: int) -> None:
    """`<prefix>0`, `<prefix>1`, ... on a machine, their lo up."""
    script = "i=0; while [ $i -lt $2 ]; do ip netns add $1$i && ip -n $1$i link set lo up || exit 1; i=$((i+1)); done"
    await machine.run("sh", "-c", script, "sh", prefix, str(count), timeout_s=120)


def pid_on_host(machine: Machine, inner: int) -> int:
    """The host's number of a machine's process. Raises RuntimeError where there is none."""
    space = _pid_space(machine.pid)
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _pid_space(int(place.name)) == space and _numbers(place)[-1] == inner:
                return int(place.name)
    raise RuntimeError(f"{machine.name}: no process {inner}")


def family_of(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(descendant for child in children for descendant in family_of(int(child)))]


def _pid_space(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/pid").stat().st_ino


def _numbers(place: Path) -> list[int]:
    """A process's ids, the host's first (proc(5), NSpid)."""
    lines = (place / "status").read_text().splitlines()
    return [int(number) for line in lines if line.startswith("NSpid:") for number in line.split()[1:]]


def memory_mib(pid: int) -> tuple[float, float]:
    """What a process has in memory, and its share of it where pages are shared (RSS and PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = {name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
    return kib["Rss"] / 1024, kib["Pss"] / 1024


def cpu_s(pids: list[int]) -> float:
    """Seconds that processes have computed, all threads (proc(5), schedstat: nanoseconds)."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def age_s(pid: int, now_boottime_s: float) -> float:
    """How long a process has existed, to 10 ms (proc(5), stat field 22)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return now_boottime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
