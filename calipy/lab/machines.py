"""Lab machines: a network, a mount, a host name and a process namespace each, their links, and what runs on them.

A machine writes nothing to the host outside its lab's folder: /run is its own, what it changes below /etc, /opt and
/var/lib lands in memory, and the folders that are to outlive a power cut are the lab's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct


class MachineError(RuntimeError):
    """A command on a machine failed: names machine, command, status and what it said."""


class Completed(Struct, frozen=True, gc=False):
    """A command that has ended."""

    status: int
    output: str
    errors: str


class Identity(Struct, frozen=True, gc=False):
    """A running machine: its first process and the one that holds its namespaces, each with its start time, for process
    ids come round again."""

    pid: int
    pid_started: int
    holder: int
    holder_started: int


def started(pid: int) -> int | None:
    """When a process was started (clock ticks since boot, proc(5) field 22); None if there is none."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


class Machine:
    """One computer of a lab. Its folder below the lab's keeps what outlives a power cut."""

    def __init__(self, name: str, folder: Path, binds: Mapping[str, Path] | None = None) -> None:
        """`binds`: path on the machine -> folder on the host."""
        self.name = name
        self.folder = folder
        self._binds = dict(binds or {})
        self._identity_file = folder / "identity.json"

    @property
    def identity(self) -> Identity | None:
        """The running machine; None if it is off."""
        try:
            found = msgspec.json.decode(self._identity_file.read_bytes(), type=Identity)
        except FileNotFoundError:
            return None
        return found if started(found.pid) == found.pid_started else None

    @property
    def pid(self) -> int:
        """Its process 1, as the host numbers it. Raises MachineError where it is off."""
        identity = self.identity
        if identity is None:
            raise MachineError(f"machine {self.name} is off")
        return identity.pid

    async def start(self) -> None:
        """Switches it on."""
        for folder in (self.folder, self.folder / "scratch", *self._binds.values()):
            folder.mkdir(parents=True, exist_ok=True)
        control = self.folder / "control.sock"
        control.unlink(missing_ok=True)
        spec = self.folder / "spec.json"
        spec.write_text(
            json.dumps(
                {
                    "name": self.name,
                    "control": str(control),
                    "scratch": str(self.folder / "scratch"),
                    "binds": [[str(source), target] for target, source in self._binds.items()],
                }
            )
        )
        unshare = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with open(self.folder / "init.log", "ab") as log:
            holder = await asyncio.create_subprocess_exec(
                *unshare, sys.executable, "-m", "calipy.lab.init", str(spec),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        pid = await self._first_process(holder)
        identity = Identity(pid, started(pid) or 0, holder.pid, started(holder.pid) or 0)
        self._identity_file.write_bytes(msgspec.json.encode(identity))
        await self.run("ip", "link", "set", "lo", "up")

    async def _first_process(self, holder: asyncio.subprocess.Process) -> int:
        """Waits until process 1 answers on its control socket; its id."""
        children = Path("/proc", str(holder.pid), "task", str(holder.pid), "children")
        for _ in range(2000):
            if holder.returncode is not None:
                said = (self.folder / "init.log").read_text()[-2000:]
                raise MachineError(f"machine {self.name} does not start: {said}")
            try:
                await self._order({"do": "status"})
                return int(children.read_text().split()[0])
            except (OSError, IndexError):
                await asyncio.sleep(0.005)
        raise MachineError(f"machine {self.name} does not answer within 10 s; see {self.folder / 'init.log'}")

    def power_cut(self) -> None:
        """Ends it and all that runs on it, at once; what its folders hold stays."""
        identity = self.identity
        if identity is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGKILL)

    async def stopped(self) -> None:
        """Waits until nothing of it is left."""
        try:
            found = msgspec.json.decode(self._identity_file.read_bytes(), type=Identity)
        except FileNotFoundError:
            return
        for pid, born in ((found.pid, found.pid_started), (found.holder, found.holder_started)):
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    if started(pid) == born:
                        await _readable(descriptor)
                finally:
                    os.close(descriptor)
        self._identity_file.unlink(missing_ok=True)

    def inside(self, *argv: str) -> list[str]:
        """The command line that runs `argv` on the machine."""
        return ["nsenter", "-t", str(self.pid), "--mount", "--net", "--uts", "--ipc", "--pid", "--", *argv]

    async def run(
        self,
        *argv: str,
        text: str = "",
        check: bool = True,
        timeout_s: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Runs a command on the machine to its end. Raises MachineError unless it succeeds (with `check`)."""
        done = await run(self.inside(*argv), text=text, timeout_s=timeout_s, env=env)
        if check and done.status:
            said = (done.errors or done.output).strip()
            raise MachineError(f"{self.name}: {' '.join(argv)}: status {done.status}: {said}")
        return done

    async def supervise(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        heartbeat: str | None = None,
        limit_s: float = 30.0,
    ) -> None:
        """Starts a process that the machine keeps running; its output goes to `<folder>/<name>.log`."""
        log = str(self.folder / f"{name}.log")
        await self._order(
            {
                "do": "start",
                "name": name,
                "argv": list(argv),
                "env": dict(env),
                "log": self._bound(log),
                "heartbeat": heartbeat,
                "limit_s": limit_s,
            }
        )

    async def stop(self, name: str) -> None:
        """Ends a supervised process for good."""
        await self._order({"do": "stop", "name": name})

    async def signal(self, name: str, number: int) -> None:
        """Sends a signal to a supervised process and its children."""
        await self._order({"do": "signal", "name": name, "signal": number})

    async def processes(self) -> dict[str, dict[str, Any]]:
        """The supervised processes: name -> pid (on the machine), restarts, wanted."""
        return await self._order({"do": "status"})

    def _bound(self, path: str) -> str:
        """A path of the machine's folder as process 1 sees it: the folder is bound at LOGS."""
        return str(Path(LOGS) / Path(path).name)

    async def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "control.sock"))
        try:
            writer.write(json.dumps(order).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
        finally:
            writer.close()
        if "error" in answer:
            raise MachineError(f"machine {self.name}: {order['do']} {order.get('name', '')}: {answer['error']}")
        return answer


LOGS = "/var/log/calipy-lab"


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def run(
    argv: Sequence[str], *, text: str = "", timeout_s: float = 30, env: Mapping[str, str] | None = None
) -> Completed:
    """Runs a command on the host to its end; past its time it is killed and counts as status 124."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env) if env is not None else None,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(text.encode()), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        return Completed(124, "", f"killed after {timeout_s:g} s")
    return Completed(process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace"))


async def connect(a: Machine, a_link: str, b: Machine, b_link: str, mtu: int = 1500) -> None:
    """A cable: a veth pair, each end made on its machine."""
    one = ["ip", "link", "add", a_link, "netns", str(a.pid), "mtu", str(mtu), "type", "veth"]
    done = await run([*one, "peer", "name", b_link, "netns", str(b.pid), "mtu", str(mtu)])
    if done.status:
        raise MachineError(f"cable from {a.name} to {b.name}: {done.errors.strip()}")
    await a.run("ip", "link", "set", a_link, "up")
    await b.run("ip", "link", "set", b_link, "up")
