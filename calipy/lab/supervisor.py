"""Process 1 of a lab machine: builds its view of the file system, then starts, watches, restarts and reaps processes.

Run as `unshare ... --pid --fork python -S -E -m calipy.lab.supervisor FOLDER READY`, with FOLDER/machine.json
(`{"name", "binds", "program"}`) in place; it writes a byte to the descriptor READY once it takes orders. It needs the
standard library only: there is one of it a machine (11 MiB resident, 5 of them its own). When it dies the kernel ends
all that runs on the machine: that is a power cut. It outlives whoever started it.

Control: FOLDER/control.sock, mode 0600; one JSON object a connection, one back; `{"error": text}` where it can't be
done.
    {"do": "start", "name", "argv", "env", "log", "restart", "alone",
     "liveness": null | {"argv", "period_s", "timeout_s", "failures"}}
    {"do": "stop", "name"}      answered when it has ended      {"do": "signal", "name", "signal"}      {"do": "status"}
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

from calipy.lab import mounts
from calipy.lab.processes import Liveness, Order, Supervised

_REQUEST_TIMEOUT_S = 5.0


class Supervisor:
    """The loop: control connections and ends of children."""

    def __init__(self, control: socket.socket, folder: int) -> None:
        self._control = control
        self._folder = folder
        self._processes: dict[str, Supervised] = {}
        self._waiting: dict[str, list[socket.socket]] = {}
        self._children, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._children, selectors.EVENT_READ)

    def run(self) -> None:
        """For ever."""
        while True:
            for key, _ in self._selector.select(self._tick()):
                if key.fd == self._children:
                    os.read(self._children, 4096)
                else:
                    self._serve()
            self._reap()

    def _tick(self) -> float | None:
        now = time.monotonic()
        waits = [due for process in self._processes.values() if (due := process.tick(now)) is not None]
        return max(0.0, min(waits) - now) if waits else None

    def _reap(self) -> None:
        """Ends of our children and of orphans, which process 1 inherits."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            for process in self._processes.values():
                process.reaped(pid, os.waitstatus_to_exitcode(status), time.monotonic())
        for name in [name for name in self._waiting if self._processes[name].over]:
            del self._processes[name]
            for connection in self._waiting.pop(name):
                _answer(connection, {})

    def _serve(self) -> None:
        connection, _ = self._control.accept()
        connection.settimeout(_REQUEST_TIMEOUT_S)
        try:
            with connection.makefile("rb") as reader:
                answer = self._obey(json.loads(reader.readline()), connection)
        except (OSError, ValueError, KeyError, TypeError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        if answer is not None:
            _answer(connection, answer)

    def _obey(self, request: dict[str, Any], connection: socket.socket) -> dict[str, Any] | None:
        """The answer; None = later."""
        if request["do"] == "status":
            return {name: _shown(process) for name, process in self._processes.items()}
        name = request["name"]
        if request["do"] == "start":
            return self._start(_order(request))
        if name not in self._processes:
            raise ValueError(f"no process {name!r} here; there are: {', '.join(self._processes) or 'none'}")
        process = self._processes[name]
        match request["do"]:
            case "signal":
                process.signal(request["signal"])
                return {}
            case "stop":
                process.stop(time.monotonic())
                self._waiting.setdefault(name, []).append(connection)
                return None
        raise ValueError(f"no such order: {request['do']!r}")

    def _start(self, order: Order) -> dict[str, Any]:
        found = self._processes.get(order.name)
        if found and not found.over:
            raise ValueError(f"process {order.name!r} is there already; stop it first")
        process = Supervised(order, self._folder)
        process.start(time.monotonic())
        self._processes[order.name] = process
        return {}


def _order(request: dict[str, Any]) -> Order:
    liveness = request["liveness"]
    if liveness is not None:
        liveness = Liveness(**(liveness | {"argv": tuple(liveness["argv"])}))
    argv = tuple(request["argv"])
    return Order(request["name"], argv, request["env"], request["log"], request["restart"], liveness, request["alone"])


def _shown(process: Supervised) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "over": process.over,
        "status": process.status,
        "restarts": process.restarts,
        "unwell": process.unwell,
    }


def _answer(connection: socket.socket, answer: dict[str, Any]) -> None:
    """Whoever asked may be gone: then nobody misses the answer."""
    with connection:
        try:
            connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            print(f"control: {error}", file=sys.stderr)


def main() -> None:
    """Entry point."""
    path = sys.argv[1]
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with open(os.path.join(path, "machine.json"), encoding="utf-8") as file:
        machine = json.load(file)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o077)
    control.bind(os.path.join(path, "control.sock"))
    os.umask(0o022)
    mounts.build(machine["binds"], machine["program"])
    socket.sethostname(machine["name"])
    os.chdir("/")
    control.listen(64)
    ready = int(sys.argv[2])
    os.write(ready, b"+")
    os.close(ready)
    Supervisor(control, folder).run()


if __name__ == "__main__":
    main()
