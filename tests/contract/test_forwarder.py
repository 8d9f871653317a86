"""The forwarder's binary, driven as a runtime drives it, against a small agent of the test's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "calipy/cni/forwarder/calipy-cni.c"
SUPPORTED = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
TRY_AGAIN_LATER, NOT_AVAILABLE, BAD_ENVIRONMENT = 11, 50, 4


class Asked(NamedTuple):
    """What the agent received: one line's object, the descriptor's inode (0 = none came), bytes after the line."""

    call: dict[str, object]
    inode: int
    rest: bytes


class Said(NamedTuple):
    """What the forwarder did."""

    status: int
    output: bytes

    @property
    def json(self) -> dict[str, object]:
        """The printed object."""
        found = json.loads(self.output)
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="session")
def forwarder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binary, built as set-up builds it."""
    built = tmp_path_factory.mktemp("forwarder") / "calipy-cni"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run(["musl-gcc", *flags, "-o", built, SOURCE], check=True)
    return built


class Agent:
    """Answers one connection after another with the same bytes, and keeps what it was asked."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.path = path
        self.asked: list[Asked] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # the listener was shut down: the test is over
                return
            with connection:
                self.asked.append(_receive(connection))
                connection.sendall(self._answer)

    def close(self) -> None:
        """Ends it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def _receive(connection: socket.socket) -> Asked:
    received, inode = b"", 0
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
        assert not descriptors or not received, "the descriptor comes with the first byte"
        for descriptor in descriptors:
            inode = os.fstat(descriptor).st_ino
            os.close(descriptor)
        if not data:
            line, _, rest = received.partition(b"\n")
            return Asked(json.loads(line), inode, rest)
        received += data


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[[bytes], Agent]]:
    """Starts an agent that gives this answer."""
    started: list[Agent] = []

    def start(answer: bytes) -> Agent:
        started.append(Agent(tmp_path / "cni.sock", answer))
        return started[-1]

    yield start
    for one in started:
        one.close()


Run = Callable[..., Said]


@pytest.fixture
def run(forwarder: Path, tmp_path: Path) -> Run:
    """Runs the forwarder with this environment and standard input."""

    def call(stdin: bytes = b"{}", **env: str) -> Said:
        places = {"CALIPY_CNI_SOCKET": str(tmp_path / "cni.sock"), "CALIPY_READY_FILE": str(tmp_path / "ready")}
        done = subprocess.run(
            [str(forwarder)], input=stdin, env=places | env, stdout=subprocess.PIPE, timeout=30, check=False
        )
        return Said(done.returncode, done.stdout)

    return call


def test_relays_environment_standard_input_and_answer(agent: Callable[[bytes], Agent], run: Run) -> None:
    answering = agent(b'0{"cniVersion":"1.0.0"}\n')
    env = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_ARGS": 'A="b\\";C=\td'}
    assert run(b'{"name":"n"}', **env, OTHER="not passed") == Said(0, b'{"cniVersion":"1.0.0"}\n')
    assert answering.asked == [Asked({"env": env, "stdin": '{"name":"n"}'}, 0, b"")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        'quotes " and \\ backslash',
        "lines\nand\ttabs\r\x00\x01\x1f\x7f",
        "žluťoučký 🐈",
        "x" * (1 << 20) + '"',
        "\\" * 70001,
    ],
    ids=["empty", "quotes", "controls", "unicode", "megabyte", "backslashes"],
)
def test_standard_input_arrives_whole(agent: Callable[[bytes], Agent], run: Run, text: str) -> None:
    answering = agent(b"0")
    assert run(text.encode(), CNI_COMMAND="ADD") == Said(0, b"")
    assert answering.asked[0].call["stdin"] == text


def test_a_long_answer_arrives_whole(agent: Callable[[bytes], Agent], run: Run) -> None:
    agent(b"0" + b"a" * (1 << 20))
    assert run(CNI_COMMAND="GC") == Said(0, b"a" * (1 << 20))


def test_relays_failure(agent: Callable[[bytes], Agent], run: Run) -> None:
    agent(b'1{"code":7}')
    assert run(CNI_COMMAND="ADD") == Said(1, b'{"code":7}')


def test_hands_over_the_namespace(agent: Callable[[bytes], Agent], run: Run) -> None:
    answering = agent(b"0")
    assert run(CNI_COMMAND="ADD", CNI_NETNS="/proc/self/ns/net").status == 0
    assert answering.asked[0].inode == os.stat("/proc/self/ns/net").st_ino


@pytest.mark.parametrize("netns", ["", "/does/not/exist"])
def test_a_namespace_that_does_not_open_is_left_to_the_agent(
    agent: Callable[[bytes], Agent], run: Run, netns: str
) -> None:
    answering = agent(b"0")
    assert run(CNI_COMMAND="DEL", CNI_NETNS=netns).status == 0
    assert answering.asked == [Asked({"env": {"CNI_COMMAND": "DEL", "CNI_NETNS": netns}, "stdin": "{}"}, 0, b"")]


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC"])
def test_an_absent_agent_is_try_again_later(run: Run, command: str) -> None:
    said = run(b'{"cniVersion":"1.1.0"}', CNI_COMMAND=command)
    assert (said.status, said.json["code"], said.json["cniVersion"]) == (1, TRY_AGAIN_LATER, "1.1.0")
    assert "cni.sock: No such file or directory" in str(said.json["details"])


def test_a_dead_agents_socket_is_try_again_later(run: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "cni.sock"))
    said = run(CNI_COMMAND="ADD")
    assert (said.status, said.json["code"]) == (1, TRY_AGAIN_LATER)
    assert "Connection refused" in str(said.json["details"])


def test_an_agent_that_goes_away_is_try_again_later(agent: Callable[[bytes], Agent], run: Run) -> None:
    agent(b"")
    said = run(CNI_COMMAND="ADD")
    assert (said.status, said.json["code"]) == (1, TRY_AGAIN_LATER)


def test_a_socket_path_that_is_too_long_is_named(run: Run) -> None:
    said = run(CNI_COMMAND="ADD", CALIPY_CNI_SOCKET="/" + "x" * 200)
    assert said.status == 1
    assert "x" * 200 in str(said.json["details"])


def test_a_killed_forwarder_hangs_up(forwarder: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "cni.sock"))
        listener.listen()
        env = {"CALIPY_CNI_SOCKET": str(tmp_path / "cni.sock"), "CNI_COMMAND": "ADD"}
        with subprocess.Popen([str(forwarder)], env=env, stdin=subprocess.DEVNULL) as process:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):
                    pass  # its end of stream: the request is whole
                process.kill()
                process.wait()
                with pytest.raises((BrokenPipeError, ConnectionResetError)):
                    connection.sendall(b"0")


@pytest.mark.parametrize(
    ("config", "version"),
    [
        *((f'{{"cniVersion":"{version}"}}', version) for version in SUPPORTED),
        ('{"cniVersion":"2.0.0"}', "1.1.0"),
        ('{ "name" : "cniVersion" , "cniVersion" :\n "0.4.0" }', "0.4.0"),
        ('{"prevResult":{"cniVersion":"0.3.1"},"cniVersion":"1.0.0"}', "1.0.0"),
        ('{"name":"{\\"cniVersion\\":\\"0.3.1\\"}","cniVersion":"1.0.0"}', "1.0.0"),
    ],
)
def test_version_is_answered_alone(run: Run, config: str, version: str) -> None:
    said = run(config.encode(), CNI_COMMAND="VERSION", CNI_NETNS="dummy", CNI_IFNAME="dummy")
    assert (said.status, said.json) == (0, {"cniVersion": version, "supportedVersions": SUPPORTED})


@pytest.mark.parametrize(
    "config", ["", "{", '{"cniVersion":', '{"cniVersion":7}', '{"prevResult":{"cniVersion":"1.1.0"}}']
)
def test_errors_speak_0_4_0_where_no_version_is_asked_for(run: Run, config: str) -> None:
    assert run(config.encode(), CNI_COMMAND="ADD").json["cniVersion"] == "0.4.0"


@pytest.mark.parametrize("env", [{}, {"CNI_COMMAND": ""}])
def test_a_missing_command_is_named(run: Run, env: Mapping[str, str]) -> None:
    said = run(**env)
    assert (said.status, said.json["code"]) == (1, BAD_ENVIRONMENT)
    assert "CNI_COMMAND" in str(said.json["msg"])


@pytest.mark.parametrize(("age_s", "grace_s"), [(0, 60), (59, 1000), (5.25, 60.5)])
def test_status_is_ready_within_the_grace_period(run: Run, tmp_path: Path, age_s: float, grace_s: float) -> None:
    (tmp_path / "ready").write_text(f"{time.clock_gettime(time.CLOCK_BOOTTIME) - age_s:.3f} {grace_s}\n")
    assert run(CNI_COMMAND="STATUS") == Said(0, b"")


def test_status_asks_no_agent(agent: Callable[[bytes], Agent], run: Run) -> None:
    answering = agent(b"0")
    assert run(CNI_COMMAND="STATUS").status == 1
    assert answering.asked == []


def test_status_past_the_grace_period_names_file_age_and_grace(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ready").write_text(f"{time.clock_gettime(time.CLOCK_BOOTTIME) - 1000:.3f} 60\n")
    said = run(b'{"cniVersion":"1.1.0"}', CNI_COMMAND="STATUS")
    assert (said.status, said.json["code"], said.json["cniVersion"]) == (1, NOT_AVAILABLE, "1.1.0")
    details = str(said.json["details"])
    assert str(tmp_path / "ready") in details
    assert "60 s" in details
    assert "log" in details


def test_status_without_a_ready_file(run: Run, tmp_path: Path) -> None:
    said = run(CNI_COMMAND="STATUS")
    assert (said.status, said.json["code"]) == (1, NOT_AVAILABLE)
    assert f"{tmp_path / 'ready'}: No such file or directory" in str(said.json["details"])


@pytest.mark.parametrize("text", ["", "\n", "7", "seven 60", "7;60", "1 2"])
def test_status_with_a_malformed_or_ancient_ready_file(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "ready").write_text(text)
    said = run(CNI_COMMAND="STATUS")
    assert (said.status, said.json["code"]) == (1, NOT_AVAILABLE)
    assert str(tmp_path / "ready") in str(said.json["details"])
