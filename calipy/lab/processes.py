"""One process that a lab machine keeps running, as a kubelet keeps a container: started again when it ends, killed when
its liveness command fails, and nothing of its session left when it is gone. Standard library only; the clock is an
argument (monotonic seconds)."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import NamedTuple

FIRST_DELAY_S, MOST_DELAY_S = 0.1, 5.0
STEADY_S = 10.0
"""After so long at work the next restart waits the first delay again."""
PATIENCE_S = 5.0
"""From TERM to KILL."""


class Liveness(NamedTuple):
    """A command that ends with status 0, within its time, while the process is well."""

    argv: tuple[str, ...]
    period_s: float
    timeout_s: float
    failures: int
    """So many in a row, and the process is killed."""


class Order(NamedTuple):
    """What is to run. `log` is a file's name in the machine's folder."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: str
    restart: bool
    liveness: Liveness | None
    alone: bool = False
    """What it started goes on without it, as containers do when their runtime ends (systemd's KillMode=process)."""


class Supervised:
    """A process and its fate. `folder`: descriptor of the folder that logs are in."""

    def __init__(self, order: Order, folder: int) -> None:
        self.order = order
        self.pid = 0
        self.status: int | None = None
        """Of the last end: exit status, or minus the signal."""
        self.restarts = 0
        self.unwell = 0
        """How often the liveness command had it killed."""
        self._folder = folder
        self._started_s = 0.0
        self._delay_s = FIRST_DELAY_S
        self._start_s: float | None = None
        self._kill_s: float | None = None
        self._leaving = False
        self._probe = 0
        self._probe_s = 0.0
        self._failures = 0

    @property
    def over(self) -> bool:
        """True when it has ended and won't come back."""
        return not self.pid and self._start_s is None

    def start(self, now: float) -> None:
        """Runs it. Raises OSError if there is no such program."""
        self._started_s, self._start_s, self._failures = now, None, 0
        self.pid = self._spawn(self.order.argv)
        if self.order.liveness:
            self._probe_s = now + self.order.liveness.period_s

    def stop(self, now: float) -> None:
        """Asks it to end, for good."""
        self._leaving, self._start_s = True, None
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # one that is stopped can't end
        self._kill_s = now + PATIENCE_S if self.pid else None

    def signal(self, number: int) -> None:
        """Sends it a signal; nothing happens while it is down."""
        if self.pid:
            os.kill(self.pid, number)

    def reaped(self, pid: int, status: int, now: float) -> None:
        """A child of process 1 has ended: perhaps this one, or its liveness command."""
        if pid == self._probe:
            self._probe = 0
            self._judged(status == 0, now)
        elif pid == self.pid:
            if not self.order.alone:
                self._end_session(pid)
            self.pid, self.status, self._kill_s = 0, status, None
            self._kill_probe()
            if self.order.restart and not self._leaving:
                self._plan(now)

    def tick(self, now: float) -> float | None:
        """Does what is due; when to come again, None = not before something happens."""
        if self._start_s is not None and now >= self._start_s:
            self.restarts += 1
            self._start_again(now)
        if self.pid and self._kill_s is not None and now >= self._kill_s:
            self.signal(signal.SIGKILL)  # the rest of its session follows it
            self._kill_s = None
        if self.pid and self.order.liveness and now >= self._probe_s:
            self._look(self.order.liveness, now)
        probe_s = self._probe_s if self.pid and self.order.liveness else None
        waits = [due for due in (self._start_s, self._kill_s, probe_s) if due is not None]
        return min(waits) if waits else None

    def _plan(self, now: float) -> None:
        """Each start that doesn't last doubles the wait for the next."""
        steady = now - self._started_s >= STEADY_S
        self._start_s = now + (FIRST_DELAY_S if steady else self._delay_s)
        self._delay_s = FIRST_DELAY_S * 2 if steady else min(self._delay_s * 2, MOST_DELAY_S)

    def _start_again(self, now: float) -> None:
        try:
            self.start(now)
        except OSError as error:
            log = self._open_log()
            os.write(log, f"{self.order.argv[0]}: {error}\n".encode())
            os.close(log)
            self._plan(now)

    def _look(self, liveness: Liveness, now: float) -> None:
        """Runs the liveness command; one that is still running has had its time."""
        if self._probe:
            self._kill_probe()
            self._judged(False, now)
            return
        self._probe = self._spawn(liveness.argv)
        self._probe_s = now + liveness.timeout_s

    def _judged(self, well: bool, now: float) -> None:
        liveness = self.order.liveness
        assert liveness is not None
        self._failures = 0 if well else self._failures + 1
        self._probe_s = now + liveness.period_s
        if self._failures >= liveness.failures:
            self.unwell += 1
            self._failures = 0
            self.signal(signal.SIGKILL)

    def _kill_probe(self) -> None:
        if self._probe:
            self._end_session(self._probe)
            self._probe = 0

    def _open_log(self) -> int:
        return os.open(self.order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600, dir_fd=self._folder)

    def _spawn(self, argv: tuple[str, ...]) -> int:
        log = self._open_log()
        try:
            return os.posix_spawnp(
                argv[0],
                argv,
                self.order.env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        finally:
            os.close(log)

    def _end_session(self, leader: int) -> None:
        """Kills what runs in a process's session, as the end of a container's first process ends the container."""
        for pid in session(leader):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def session(leader: int) -> list[int]:
    """The processes of a session (proc(5): stat field 6)."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader:
            found.append(int(entry))
    return found
