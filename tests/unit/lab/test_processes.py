"""A supervised process under a clock that the test winds."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from calipy.lab.processes import FIRST_DELAY_S, MOST_DELAY_S, PATIENCE_S, STEADY_S, Liveness, Order, Supervised, session

ENV: Mapping[str, str] = {"PATH": "/usr/bin:/bin"}
FOREVER = ("sleep", "60")


class Rig:
    """What process 1 does for a process: a clock, reaping, a folder of logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptor = os.open(folder, os.O_RDONLY)
        self.now = 1000.0
        self.made: list[Supervised] = []

    def start(
        self, *argv: str, restart: bool = True, liveness: Liveness | None = None, alone: bool = False
    ) -> Supervised:
        process = Supervised(Order("p", argv, ENV, "p.log", restart, liveness, alone), self.descriptor)
        self.made.append(process)
        process.start(self.now)
        return process

    def reap(self, process: Supervised, pid: int) -> None:
        """Waits for a child's end and tells of it."""
        wait_for(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
        _, status = os.waitpid(pid, 0)
        process.reaped(pid, os.waitstatus_to_exitcode(status), self.now)

    def after(self, process: Supervised, seconds: float) -> float | None:
        """Winds the clock and lets it do what is due; seconds until it wants to be called again."""
        self.now += seconds
        due = process.tick(self.now)
        return None if due is None else round(due - self.now, 6)

    def log(self) -> str:
        return (self.folder / "p.log").read_text()

    def close(self) -> None:
        for process in self.made:
            for leader in {process.pid, process._probe} - {0}:
                os.killpg(leader, signal.SIGKILL)
                os.waitpid(leader, 0)
        os.close(self.descriptor)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_each_short_life_doubles_the_wait_and_a_long_one_starts_over(rig: Rig) -> None:
    process = rig.start("true")
    waits = []
    for _ in range(8):
        rig.reap(process, process.pid)
        assert not process.over
        wait = rig.after(process, 0)
        assert wait is not None
        waits.append(wait)
        assert rig.after(process, wait - 0.01) == 0.01
        assert process.pid == 0
        rig.after(process, 0.02)
        assert process.pid
    assert waits == [FIRST_DELAY_S * 2**n for n in range(6)] + [MOST_DELAY_S] * 2
    assert process.restarts == 8
    rig.after(process, STEADY_S)
    rig.reap(process, process.pid)
    assert rig.after(process, 0) == FIRST_DELAY_S


def test_it_is_not_started_again_where_nobody_wants_that(rig: Rig) -> None:
    process = rig.start("sh", "-c", "echo said; echo cried >&2; exit 3", restart=False)
    rig.reap(process, process.pid)
    assert (process.over, process.status, rig.after(process, 100)) == (True, 3, None)
    assert rig.log() == "said\ncried\n"


def test_a_program_that_is_not_there(rig: Rig) -> None:
    with pytest.raises(FileNotFoundError):
        rig.start("/does/not/exist")
    rig.made.clear()


def test_a_program_that_vanishes_is_tried_again(rig: Rig, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    process = rig.start(str(program))
    program.unlink()
    rig.reap(process, process.pid)
    assert rig.after(process, FIRST_DELAY_S) == FIRST_DELAY_S * 2
    assert not process.over
    assert "No such file or directory" in rig.log()


def test_stop_asks_first_and_kills_later(rig: Rig) -> None:
    process = rig.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 60 & wait; done")
    wait_for(lambda: "up" in rig.log())
    process.stop(rig.now)
    assert rig.after(process, PATIENCE_S / 2) == PATIENCE_S / 2
    assert process.pid
    rig.after(process, PATIENCE_S / 2)
    rig.reap(process, process.pid)
    assert (process.over, process.status) == (True, -signal.SIGKILL)


def test_stop_ends_one_that_is_stopped_and_one_that_waits(rig: Rig) -> None:
    process = rig.start("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 60 & wait; done")
    wait_for(lambda: "up" in rig.log())
    process.signal(signal.SIGSTOP)
    process.stop(rig.now)
    rig.reap(process, process.pid)
    assert (process.over, process.status) == (True, 7)
    waiting = rig.start("true")
    rig.reap(waiting, waiting.pid)
    waiting.stop(rig.now)
    assert waiting.over
    assert rig.after(waiting, 100) is None


def test_one_that_is_alone_ends_alone(rig: Rig) -> None:
    child = "trap 'echo goes on; exit' USR1; echo up; while :; do sleep 0.02; done"
    process = rig.start("sh", "-c", f"sh -c {shlex.quote(child)} & echo $!; wait", alone=True)
    wait_for(lambda: len(rig.log().split()) == 2)
    pid = next(int(word) for word in rig.log().split() if word.isdecimal())
    process.signal(signal.SIGKILL)
    rig.reap(process, process.pid)
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: "goes on" in rig.log())


def test_its_children_end_with_it(rig: Rig) -> None:
    process = rig.start("sh", "-c", "sleep 60 & sleep 60 & echo up; wait")
    wait_for(lambda: "up" in rig.log())
    leader = process.pid
    assert len(session(leader)) == 3
    process.signal(signal.SIGKILL)
    rig.reap(process, leader)
    wait_for(lambda: not any(map(alive, session(leader))))


def test_an_unwell_process_is_killed_after_so_many_failures_in_a_row(rig: Rig, tmp_path: Path) -> None:
    well = tmp_path / "well"
    liveness = Liveness(("test", "-e", str(well)), period_s=10, timeout_s=2, failures=2)
    process = rig.start(*FOREVER, liveness=liveness)
    assert rig.after(process, 0) == 10
    for is_well, unwell in ((False, 0), (True, 0), (False, 0), (False, 1)):
        well.touch() if is_well else well.unlink(missing_ok=True)
        assert rig.after(process, 10) == 2
        rig.reap(process, process._probe)
        assert process.unwell == unwell
    rig.reap(process, process.pid)
    assert process.status == -signal.SIGKILL
    assert rig.after(process, FIRST_DELAY_S) == 10
    assert process.pid


def test_a_liveness_command_that_hangs_has_failed(rig: Rig) -> None:
    process = rig.start(*FOREVER, liveness=Liveness(FOREVER, period_s=10, timeout_s=2, failures=1))
    rig.after(process, 10)
    probe = process._probe
    rig.after(process, 2)
    rig.reap(process, probe)
    rig.reap(process, process.pid)
    assert (process.unwell, process.status) == (1, -signal.SIGKILL)


def alive(pid: int) -> bool:
    """A killed orphan may wait for this host's process 1 to reap it."""
    stat = Path("/proc", str(pid), "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    """A child's doing, which nobody tells of."""
    for _ in range(3_000):
        if condition():
            return
        os.sched_yield()
        signal.sigtimedwait([], 0.001)
    raise AssertionError(condition)
