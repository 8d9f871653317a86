"""What the agent costs when nothing happens, and how long it takes to come back: memory, idle CPU, restart. In a
cluster of three nodes, on the one that has the pods; each node has three BGP sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import callers, labs
from bench.rows import Row, median, row
from calipy.explain.query import Unanswered
from calipy.explain.report import NodeReport
from calipy.lab.cluster import AGENT, BGP, Lab
from calipy.lab.machines import Machine

_NODE, _PODS, _IDLE_S, _RESTARTS = "n1", 110, 60, 5
_CONFIGURATION = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calipy-cni"}


def rows() -> Iterator[Row]:
    """Memory, CPU, restart."""
    yield from asyncio.run(_measure())


async def _measure() -> list[Row]:
    found = []
    async with labs.lab() as lab:
        machine = lab.machines[_NODE]
        empty, _ = labs.memory_mib(await _pid(machine, AGENT))
        async with labs.STEPS.step(f"{_PODS} pods on {_NODE}"):
            await _attach(machine)
        full, share = labs.memory_mib(await _pid(machine, AGENT))
        found.append(row("agent: memory, no pods (RSS)", "MiB", empty, limit=60))
        found.append(row(f"agent: memory, {_PODS} pods (RSS)", "MiB", full, limit=70))
        found.append(row(f"agent: memory, {_PODS} pods (its share, PSS)", "MiB", share))
        found += await _idle(machine)
        found.append(await _restarts(lab))
    return found


async def _pid(machine: Machine, part: str) -> int:
    return labs.pid_on_host(machine, (await machine.process(part).status()).pid)


async def _attach(machine: Machine) -> None:
    await labs.make_namespaces(machine, "b", _PODS)
    job = {
        "argv": ["/opt/cni/bin/calipy-cni"],
        "stdin": json.dumps(_CONFIGURATION),
        "env": {"CNI_PATH": "/opt/cni/bin"},
        "arguments": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}",
        "verbs": ["ADD"],
        "count": _PODS,
        "at_once": 10,
        "prefix": "b",
    }
    argv = (sys.executable, "-S", "-E", str(Path(callers.__file__)))
    await machine.run(*argv, input=json.dumps(job).encode(), timeout_s=120)


async def _idle(machine: Machine) -> list[Row]:
    """Thousandths of a core over a minute: the agent, and ExaBGP with its pipe."""
    agent, speaker = [await _pid(machine, AGENT)], labs.family_of(await _pid(machine, BGP))
    async with labs.STEPS.step(f"{_IDLE_S} s of idleness") as step:
        await asyncio.sleep(5)  # what the pods have set going comes to rest
        began, agent_s, speaker_s = time.monotonic(), labs.cpu_s(agent), labs.cpu_s(speaker)
        for left in range(_IDLE_S, 0, -10):
            step.say(f"{left} s to go")
            if not sys.stderr.isatty():
                print(f"{'':15}  idle CPU: {left} s to go", file=sys.stderr, flush=True)
            await asyncio.sleep(10)
        step.say("")
        took = time.monotonic() - began
        agent_m = (labs.cpu_s(agent) - agent_s) / took * 1e3
        speaker_m = (labs.cpu_s(speaker) - speaker_s) / took * 1e3
    return [
        row(f"agent: idle CPU, {_PODS} pods, 3 sessions", "mcore", agent_m, limit=5),
        row("exabgp and pipe: idle CPU, 3 sessions", "mcore", speaker_m, limit=5),
    ]


async def _restarts(lab: Lab) -> Row:
    """From the process's start, interpreter and imports included, until it says that the kernel is in sync and that
    it takes pods."""
    took = []
    async with labs.STEPS.step(f"the agent killed {_RESTARTS} times"):
        for _ in range(_RESTARTS):
            machine = lab.machines[_NODE]
            former = (await machine.process(AGENT).status()).pid
            await lab.kill(_NODE, AGENT)
            await _in_sync(lab)
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            current = (await machine.process(AGENT).status()).pid
            assert current not in (0, former)
            took.append(labs.age_s(labs.pid_on_host(machine, current), now) * 1e3)
    return row(f"agent: start to in sync, {_PODS} pods", "ms", median(took), limit=1000)


async def _in_sync(lab: Lab) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(Unanswered):
                report = await lab.ask(_NODE, "status", NodeReport)
                if report.in_sync and not report.obstacle and report.endpoints == _PODS:
                    return
            await asyncio.sleep(0.005)
