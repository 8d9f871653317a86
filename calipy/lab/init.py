"""Process 1 of a lab machine: mounts, then starts, watches, restarts and reaps what runs there.

Run as `unshare --net --mount --pid --fork --kill-child --mount-proc python -m calipy.lab.init SPEC`. It imports nothing
but a little of the standard library: there is one of it for every machine. When it dies, the kernel ends all that ran on
the machine: that is a power cut.

Control: a Unix socket; one JSON object a connection, one JSON object back.
    {"do": "start", "name": ..., "argv": [...], "env": {...}, "log": path, "heartbeat": path|null, "limit_s": 30}
    {"do": "signal", "name": ..., "signal": 9}     {"do": "stop", "name": ...}     {"do": "status"}
A process that ends is started again after 0.1 s, then twice as long each time, up to 5 s; one whose heartbeat file (first
number: CLOCK_BOOTTIME seconds) has grown older than `limit_s` is killed first.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_FIRST_DELAY_S, _MOST_DELAY_S, _STEADY_S = 0.1, 5.0, 10.0
_OVERLAID = ("/etc", "/opt", "/var/lib")
_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """One supervised process."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.name: str = order["name"]
        self.argv: list[str] = order["argv"]
        self.env: dict[str, str] = order["env"]
        self.log: str = order["log"]
        self.heartbeat: str | None = order.get("heartbeat")
        self.limit_s: float = order.get("limit_s", 30.0)
        self.pid = 0
        self.started = 0.0
        self.restarts = 0
        self.delay_s = _FIRST_DELAY_S
        self.due = 0.0
        self.wanted = True

    def start(self) -> None:
        """Runs it, output to its log."""
        self.started = time.monotonic()
        pid = os.fork()
        if pid:
            self.pid = pid
            return
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.execvpe(self.argv[0], self.argv, self.env)
        except OSError as error:
            os.write(2, f"{self.argv[0]}: {error}\n".encode())
        finally:
            os._exit(127)

    def ended(self) -> None:
        """Plans the next start."""
        steady = time.monotonic() - self.started > _STEADY_S
        self.delay_s = _FIRST_DELAY_S if steady else min(self.delay_s * 2, _MOST_DELAY_S)
        self.pid = 0
        self.due = time.monotonic() + self.delay_s

    def stalled(self) -> bool:
        """True if its heartbeat is overdue, its own start being the first beat."""
        if not self.pid or not self.heartbeat or time.monotonic() - self.started < self.limit_s:
            return False
        try:
            with open(self.heartbeat, encoding="ascii") as file:
                beat = float(file.read().split()[0])
        except (OSError, ValueError, IndexError):
            return True
        return time.clock_gettime(time.CLOCK_BOOTTIME) - beat > self.limit_s


class Init:
    """The machine's supervisor."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._processes: dict[str, Process] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._children = reading
        self._selector.register(reading, selectors.EVENT_READ)

    def run(self) -> None:
        """For ever."""
        while True:
            for key, _ in self._selector.select(self._timeout()):
                if key.fd == self._children:
                    os.read(self._children, 512)
                else:
                    self._answer()
            self._reap()
            self._look_after()

    def _timeout(self) -> float | None:
        now = time.monotonic()
        waits = [process.due - now for process in self._processes.values() if process.wanted and not process.pid]
        if any(process.heartbeat and process.pid for process in self._processes.values()):
            waits.append(1.0)
        return max(0.0, min(waits)) if waits else None

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for process in self._processes.values():
                if process.pid == pid:
                    process.ended()

    def _look_after(self) -> None:
        for process in self._processes.values():
            if process.wanted and not process.pid and time.monotonic() >= process.due:
                process.restarts += 1
                process.start()
            elif process.stalled():
                os.killpg(process.pid, signal.SIGKILL)

    def _answer(self) -> None:
        connection, _ = self._control.accept()
        with connection:
            connection.settimeout(5)
            try:
                order = json.loads(connection.makefile("r").readline())
                answer = self._obey(order)
            except (OSError, ValueError, KeyError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["do"]:
            case "start":
                self._halt(order["name"])
                process = self._processes[order["name"]] = Process(order)
                process.start()
                return {"pid": process.pid}
            case "stop":
                self._halt(order["name"])
                return {}
            case "signal":
                process = self._processes[order["name"]]
                if process.pid:
                    os.killpg(process.pid, order["signal"])
                return {"pid": process.pid}
            case "status":
                return {
                    name: {"pid": process.pid, "restarts": process.restarts, "wanted": process.wanted}
                    for name, process in self._processes.items()
                }
        raise ValueError(f"no such order: {order['do']!r}")

    def _halt(self, name: str) -> None:
        """Ends a process and sees it off: TERM, then KILL after five seconds."""
        process = self._processes.get(name)
        if process is None:
            return
        process.wanted = False
        until = time.monotonic() + 5
        if process.pid:
            os.killpg(process.pid, signal.SIGTERM)
        while process.pid:
            if time.monotonic() > until:
                os.killpg(process.pid, signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)
            self._reap()
        del self._processes[name]


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or 'bind'} {source} on {target}: {os.strerror(number)}")


def _mount_all(spec: dict[str, Any]) -> None:
    """The machine's own view: what it writes below /etc, /opt and /var/lib goes to its scratch folder, the folders that
    outlive it are bound where the product expects them, and /run is its own."""
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("scratch", spec["scratch"], "tmpfs", 0, "mode=755")
    for place in _OVERLAID:
        upper, work = (os.path.join(spec["scratch"], place.replace("/", "_") + end) for end in ("", ".work"))
        os.mkdir(upper, 0o755)
        os.mkdir(work)
        _mount("overlay", place, "overlay", 0, f"lowerdir={place},upperdir={upper},workdir={work}")
    for source, target in spec["binds"]:
        os.makedirs(target, exist_ok=True)
        _mount(source, target, "", _BIND)
    _mount("run", "/run", "tmpfs", 0, "mode=755")
    os.makedirs("/run/netns", exist_ok=True)


def main() -> None:
    """Entry point."""
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    os.umask(0o077)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(spec["control"])
    os.umask(0o022)
    _mount_all(spec)
    socket.sethostname(spec["name"])
    control.listen(64)
    Init(control).run()


if __name__ == "__main__":
    main()
