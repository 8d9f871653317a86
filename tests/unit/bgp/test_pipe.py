"""The pipe as a process, between a test that plays ExaBGP on its pipes and one that plays the agent on its socket."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from calipy.bgp.pipe import ALIVE, SOCKET
from calipy.bgp.sidecar import pipe_command

VERSION = b"exabgp 5.0.15\ndone\n"
NEWS = b'{ "exabgp": "5.0.0", "type": "state" }\n'


class Ends:
    """Both ends of a pipe, and its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / SOCKET))
        self.listener.listen(1)
        self.listener.settimeout(5)
        self.process = subprocess.Popen(
            pipe_command(folder, 90), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdin
        assert self.process.stdout
        self.to_pipe, self.from_pipe = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.to_pipe, False)
        self.agents: list[socket.socket] = []

    def accept(self) -> socket.socket:
        agent, _ = self.listener.accept()
        agent.settimeout(5)
        self.agents.append(agent)
        return agent

    def opened(self) -> socket.socket:
        """A connection past its beginning."""
        agent = self.accept()
        self.commands(b"version\n", b"reset\nversion\n")
        self.say(VERSION * 2)
        return agent

    def say(self, data: bytes) -> None:
        while data:
            assert select.select([], [self.to_pipe], [], 5)[1], "the pipe doesn't read"
            data = data[os.write(self.to_pipe, data) :]

    def commands(self, *expected: bytes) -> None:
        """Reads what ExaBGP is told: exactly this."""
        whole = b"".join(expected)
        data = b""
        while len(data) < len(whole):
            assert select.select([self.from_pipe], [], [], 5)[0], f"only {data!r} came"
            data += os.read(self.from_pipe, 1 << 16)
        assert data == whole

    def sign(self) -> tuple[float, int]:
        at, limit = (self.folder / ALIVE).read_text().split()
        return float(at), int(limit)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        for agent in (*self.agents, self.listener):
            agent.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path)
    yield made
    made.close()


def test_lines_go_both_ways_and_its_own_question_stays_its_own(ends: Ends) -> None:
    agent = ends.opened()
    agent.sendall(b"show neighbor json\n")
    ends.commands(b"show neighbor json\n")
    ends.say(NEWS + b"[]\ndone\n")
    assert agent.recv(1000) == NEWS + b"[]\ndone\n"
    assert ends.sign()[1] == 30
    assert (ends.folder / ALIVE).stat().st_mode & 0o777 == 0o600


def test_an_answer_to_an_earlier_connection_reaches_no_later_one(ends: Ends) -> None:
    first = ends.opened()
    first.sendall(b"announce one\nhalf a comm")
    ends.commands(b"announce one\n")
    first.close()
    second = ends.accept()
    ends.commands(b"reset\nversion\n")
    ends.say(b"done\n" + NEWS + VERSION + b"error\n")
    assert second.recv(1000) == b"error\n"
    second.sendall(b"announce two\n")
    ends.commands(b"announce two\n")


def test_an_agent_that_goes_before_exabgp_answers_is_let_go(ends: Ends) -> None:
    ends.accept().close()
    ends.accept()
    ends.commands(b"version\n", b"reset\nversion\n", b"reset\nversion\n")


def test_exabgp_is_read_without_an_agent_and_past_one_that_does_not_read(ends: Ends) -> None:
    ends.opened()
    ends.say(NEWS * ((20 << 20) // len(NEWS)))
    second = ends.accept()
    ends.commands(b"reset\nversion\n")
    ends.say(NEWS * 10 + VERSION + b"a line\n")
    assert second.recv(1000) == b"a line\n"
    second.close()
    ends.listener.close()
    ends.say(NEWS * ((1 << 20) // len(NEWS)))
    assert ends.process.poll() is None


def test_it_asks_as_often_as_the_hold_time_wants_and_only_an_answer_is_a_sign_of_life(ends: Ends) -> None:
    agent = ends.opened()
    agent.sendall(b":hold 3\n")
    ends.commands(b"version\n")
    ends.say(VERSION)
    ends.commands(b"version\n")
    at, limit = ends.sign()
    assert limit == 1
    assert at <= time.clock_gettime(time.CLOCK_BOOTTIME) <= at + 5
    # This one is not answered: no other is asked, and the sign gets old.
    agent.sendall(b":hold 3\nshow\n")
    ends.commands(b"show\n")
    assert ends.sign() == (at, limit)


def test_it_ends_with_exabgp(ends: Ends) -> None:
    assert ends.process.stdin
    ends.process.stdin.close()
    ends.process.stdin = None
    assert ends.process.wait(5) == 0


def test_it_is_small(ends: Ends) -> None:
    ends.opened().sendall(b"x\n")
    ends.commands(b"x\n")
    status = Path(f"/proc/{ends.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    assert int(resident) < 16 << 10
