"""Lab machines: a network, mount, host name and process namespace each, and what runs on them.

A machine lives through its process 1 (`calipy.lab.supervisor`), which outlives the command that started it, keeps the
machine's processes running and takes orders on a socket in the machine's folder: so any later command can act on it.
Killing process 1 is a power cut: the kernel ends all that ran there, and with it go namespaces, links and mounts. Only
the folders bound into the machine stay. How nothing else reaches the host's disk: `calipy.lab.mounts`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from calipy.console.failures import Told
from calipy.lab.executions import Completed, execute, readable, started
from calipy.lab.processes import Liveness

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
"""A name of a host, and of a link on a segment (15 bytes at most)."""
_SOCKET_PATH_MOST = 107
_START_TIMEOUT_S = 30.0
_ORDER_TIMEOUT_S = 30.0
PACKAGES = Path(__file__).resolve().parents[2]
"""Where our own package lies, on a machine as on the host."""
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")


class MachineError(Told):
    """Something on a machine failed: names the machine, what was tried, and what was said."""


class Identity(Struct, frozen=True, gc=False):
    """A machine that is on: its process 1, as the host numbers it, and when that was started."""

    pid: int
    started: int


class Status(Struct, frozen=True, gc=False, kw_only=True):
    """A supervised process."""

    pid: int
    """On the machine; 0 = it is down."""
    over: bool
    """It won't be started again."""
    status: int | None
    """Of its last end: exit status, or minus the signal; None = it has not ended yet."""
    restarts: int
    unwell: int
    """How often its liveness command had it killed."""


class Answer(Struct, frozen=True, gc=False):
    """What process 1 says to an order."""

    error: str = ""


class Machine:
    """One computer of a lab. `folder` keeps logs, the control socket and who its process 1 is."""

    def __init__(self, name: str, folder: Path, binds: Mapping[str, Path] | None = None) -> None:
        """`binds`: path on the machine -> folder on the host, kept across power cuts; made where it is missing.
        Raises MachineError for a name that is no host name of 15 characters, or a folder whose path is too long."""
        if not _NAME.fullmatch(name):
            raise MachineError(f"machine {name!r}: a name is 1 to 15 of a-z, 0-9 and -, not at its ends")
        self.name = name
        self.folder = folder
        self.binds = dict(binds or {})
        self._control = folder / "control.sock"
        if len(os.fsencode(self._control)) > _SOCKET_PATH_MOST:
            raise MachineError(
                f"machine {name}: {self._control}: longer than a socket's path can be; use a shorter folder"
            )

    @property
    def identity(self) -> Identity | None:
        """Its process 1; None while it is off."""
        try:
            found = msgspec.json.decode((self.folder / "identity.json").read_bytes(), type=Identity)
        except FileNotFoundError:
            return None
        return found if started(found.pid) == found.started else None

    @property
    def pid(self) -> int:
        """Its process 1, as the host numbers it. Raises MachineError while it is off."""
        identity = self.identity
        if identity is None:
            raise MachineError(f"machine {self.name} is off; switch it on first")
        return identity.pid

    async def start(self) -> None:
        """Switches it on, over the same folders; its links have to be plugged in again. Raises MachineError if it is
        on, or does not come up."""
        if self.identity is not None:
            raise MachineError(f"machine {self.name} is on already")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for source in self.binds.values():
            source.mkdir(parents=True, exist_ok=True)
        self._control.unlink(missing_ok=True)
        binds = {target: str(source) for target, source in self.binds.items()}
        order = {"name": self.name, "binds": binds, "program": sorted({str(PACKAGES), sys.prefix, sys.base_prefix})}
        (self.folder / "machine.json").write_bytes(msgspec.json.encode(order))
        await self._boot()
        pid = self._first_process()
        born = started(pid)
        if born is None:
            raise MachineError(f"machine {self.name} went off while it started; see {self.folder / 'machine.log'}")
        _replace(self.folder / "identity.json", msgspec.json.encode(Identity(pid, born)))
        await self.run("ip", "link", "set", "lo", "up")

    async def _boot(self) -> None:
        """Starts process 1, in a session of its own and nobody's child, and waits for its sign of life."""
        reading, writing = os.pipe()
        try:
            with (self.folder / "machine.log").open("ab") as log:
                launcher = await asyncio.create_subprocess_exec(
                    *("setsid", "--fork", "unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"),
                    *(sys.executable, "-S", "-E", "-m", "calipy.lab.supervisor", str(self.folder), str(writing)),
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(writing,), cwd=PACKAGES,
                )  # fmt: skip
            os.close(writing)
            await launcher.wait()
            async with asyncio.timeout(_START_TIMEOUT_S):
                await readable(reading)
            if not os.read(reading, 1):
                said = (self.folder / "machine.log").read_text(errors="replace")[-2000:]
                raise MachineError(f"machine {self.name} does not start: {said}")
        finally:
            os.close(reading)

    def _first_process(self) -> int:
        """The id, as the host sees it, of the process that listens on the control socket (unix(7), SO_PEERCRED)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.connect(str(self._control))
            control.sendall(b'{"do": "status"}\n')
            control.recv(1)  # the answer shows that it serves; without a question it would complain in its log
            pid, _, _ = struct.unpack("3i", control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        assert isinstance(pid, int)
        return pid

    async def power_cut(self) -> None:
        """Ends it and all that runs on it, at once, and waits until nothing is left; what its folders hold stays.
        Nothing happens if it is off."""
        identity = self.identity or self._unnamed()
        if identity is not None:
            await end(identity)
        (self.folder / "identity.json").unlink(missing_ok=True)

    def _unnamed(self) -> Identity | None:
        """Its process 1 where whoever started it was killed before he wrote down its identity."""
        try:
            pid = self._first_process()
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        born = started(pid)
        return None if born is None else Identity(pid, born)

    def inside(self, *argv: str) -> list[str]:
        """The host's command line that runs `argv` on the machine."""
        return ["nsenter", "-t", str(self.pid), *_NAMESPACES, "--", *argv]

    async def run(
        self,
        *argv: str,
        input: bytes = b"",
        check: bool = True,
        timeout_s: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Runs a command on the machine to its end. Raises MachineError unless it succeeds (with `check`)."""
        done = await execute(self.inside(*argv), env=env, stdin=input, timeout_s=timeout_s)
        if check and done.status:
            raise MachineError(f"{self.name}: {shlex.join(argv)}: status {done.status}: {done.complaint}")
        return done

    async def execute(self, argv: Sequence[str], env: Mapping[str, str], stdin: bytes) -> Completed:
        """Runs a plug-in on the machine (`runner.Execute`), for as long as the runtime lets it."""
        return await execute(self.inside(*argv), env=env, stdin=stdin, timeout_s=None)

    async def spawn(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        restart: bool = True,
        alone: bool = False,
        liveness: Liveness | None = None,
    ) -> Process:
        """Starts a process that the machine keeps running; what it prints goes to `<folder>/<name>.log`. `env`: None =
        this process's. `alone`: what it started goes on when it ends. Raises MachineError if the name is taken or there
        is no such program."""
        log = f"{name}.log"
        environment = dict(os.environ if env is None else env)
        probe = liveness and {**liveness._asdict(), "argv": list(liveness.argv)}
        order = {
            "name": name,
            "argv": list(argv),
            "env": environment,
            "log": log,
            "restart": restart,
            "alone": alone,
            "liveness": probe,
        }
        await self._obeyed("start", order)
        return Process(self, name)

    def process(self, name: str) -> Process:
        """A process that was spawned before, perhaps by another command."""
        return Process(self, name)

    async def processes(self) -> dict[str, Status]:
        """The supervised processes by name."""
        return msgspec.json.decode(await self._order({"do": "status"}), type=dict[str, Status])

    async def make_netns(self, name: str) -> str:
        """Makes a network namespace on the machine, its lo up; its path there. It goes with the machine."""
        await self.run("ip", "netns", "add", name)
        await self.run("ip", "-n", name, "link", "set", "lo", "up")
        return f"/run/netns/{name}"

    async def delete_netns(self, name: str) -> None:
        """Removes it."""
        await self.run("ip", "netns", "delete", name)

    async def _obeyed(self, do: str, order: Mapping[str, object]) -> None:
        answer = msgspec.json.decode(await self._order({"do": do, **order}), type=Answer)
        if answer.error:
            raise MachineError(f"machine {self.name}: {do} {order['name']}: {answer.error}")

    async def _order(self, order: Mapping[str, object]) -> bytes:
        try:
            async with asyncio.timeout(_ORDER_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._control)
                with contextlib.closing(writer):
                    writer.write(msgspec.json.encode(order) + b"\n")
                    answer = await reader.read()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise MachineError(f"machine {self.name} is off; switch it on first") from error
        if not answer:
            raise MachineError(f"machine {self.name} went off during {order['do']}")
        return answer


class Process:
    """A process that a machine keeps running."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name

    @property
    def log(self) -> Path:
        """What it printed, on the host."""
        return self.machine.folder / f"{self.name}.log"

    async def status(self) -> Status:
        """How it is. Raises MachineError if the machine has none of that name."""
        found = await self.machine.processes()
        if self.name not in found:
            raise MachineError(
                f"machine {self.machine.name}: no process {self.name}; there are: {', '.join(found) or 'none'}"
            )
        return found[self.name]

    async def signal(self, number: int) -> None:
        """Sends it a signal. One that ends it has it started again."""
        await self.machine._obeyed("signal", {"name": self.name, "signal": number})

    async def kill(self) -> None:
        """Kills it, and what is left of its session with it; it is started again."""
        await self.signal(signal.SIGKILL)

    async def restart(self) -> None:
        """Asks it to end; it is started again."""
        await self.signal(signal.SIGTERM)

    async def stop(self) -> None:
        """Ends it for good (TERM, after 5 s KILL), and waits for that."""
        await self.machine._obeyed("stop", {"name": self.name})


async def end(identity: Identity) -> None:
    """Kills a process and waits for its end, unless its id has come round; and for that of the `unshare` around it."""
    with contextlib.ExitStack() as opened:
        process = _watched(identity.pid, opened)
        if process is None or started(identity.pid) != identity.started:
            return
        around = _around(identity.pid)
        holder = None if around is None else _watched(around, opened)
        signal.pidfd_send_signal(process, signal.SIGKILL)
        await readable(process)
        if holder is not None:
            await readable(holder)


def _watched(pid: int, opened: contextlib.ExitStack) -> int | None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    opened.callback(os.close, descriptor)
    return descriptor


def _around(pid: int) -> int | None:
    """The `unshare` that forked a process and ends with it (proc(5), stat field 4)."""
    try:
        parent = int(Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        name = Path("/proc", str(parent), "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parent if name == "unshare" else None


def _replace(path: Path, data: bytes) -> None:
    """Writes a file whole, mode 0600."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    fresh.replace(path)
