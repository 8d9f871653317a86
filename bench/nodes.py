"""A node to measure on: a lab machine with a real agent, no Kubernetes, no BGP."""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TypeVar

import calipy
from calipy.explain import query
from calipy.explain.report import NodeReport
from calipy.lab.machines import Machine, Process

T = TypeVar("T")
_CALIPY = str(Path(sys.executable).with_name("calipy"))
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "NODENAME": "bench",
    "CALICO_NETWORKING_BACKEND": "none",
    "CALICO_IPV4POOL_CIDR": "10.244.0.0/16",
}


class Node:
    """The machine and its agent. `folder` has the store."""

    name = ENVIRONMENT["NODENAME"]

    def __init__(self, machine: Machine, agent: Process, folder: Path, environment: Mapping[str, str]) -> None:
        self.machine = machine
        self.agent = agent
        self.folder = folder
        self._environment = environment
        self._run = Path(f"/proc/{machine.pid}/root/run/calipy")

    async def ask(self, question: str, kind: type[T]) -> T:
        """What the agent answers. Raises Unanswered."""
        return await query.ask(self._run / "query.sock", question, kind)

    async def status(self) -> NodeReport:
        """What the agent says of itself."""
        return await self.ask("status", NodeReport)

    async def start_agent(self) -> None:
        """Starts it where it was stopped; doesn't wait for it."""
        self.agent = await self.machine.spawn("agent", [_CALIPY, "agent"], self._environment)

    async def ready(self) -> None:
        """Returns when pods can be attached."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(query.Unanswered):
                    if not (await self.status()).obstacle:
                        return
                await asyncio.sleep(0.005)

    async def agent_pid(self) -> int:
        """The agent's process as the host numbers it."""
        return self._seen_from_here((await self.agent.status()).pid)

    def _seen_from_here(self, inner: int) -> int:
        for entry in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                fields = [line.split()[1:] for line in entry.read_text().splitlines() if line.startswith("NSpid:")][0]
                if fields[-1] == str(inner) and len(fields) > 1 and self._is_ours(entry.parent):
                    return int(fields[0])
        raise RuntimeError("the agent's process is not to be found")

    def _is_ours(self, process: Path) -> bool:
        return (process / "ns/net").stat().st_ino == Path(f"/proc/{self.machine.pid}/ns/net").stat().st_ino


@contextlib.asynccontextmanager
async def node(environment: Mapping[str, str] | None = None) -> AsyncIterator[Node]:
    """A node whose agent is ready; removed at the end."""
    # As an installed package has it: without it half of an agent's start is compilation.
    compileall.compile_dir(Path(calipy.__file__).parent, quiet=1)
    folder = Path(tempfile.mkdtemp(prefix="calipy-b", dir="/run"))
    machine = Machine("bench", folder / "m", {"/var/lib/calipy": folder / "store", "/var/lib/calico": folder / "state"})
    try:
        await machine.start()
        for command in (
            "ip link add eth0 type veth peer name far0",
            "ip link set eth0 up",
            "ip link set far0 up",
            "ip addr add 10.9.0.11/24 dev eth0",
            "ip route add default via 10.9.0.1",
            f"{_CALIPY} install-cni",
        ):
            await machine.run(*command.split())
        whole = {**ENVIRONMENT, **(environment or {})}
        made = Node(machine, machine.process("agent"), folder, whole)
        await made.start_agent()
        await made.ready()
        yield made
    finally:
        await machine.power_cut()
        shutil.rmtree(folder)
