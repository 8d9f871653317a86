"""ExaBGP's API process: copies lines between ExaBGP and the agent's socket, whatever state the agent is in.

ExaBGP writes to its API process with blocking writes: one that doesn't read stops the whole BGP speaker, and its
sessions fall. So this one always reads, and never blocks. While the agent is away what ExaBGP says is dropped; an agent
that is too far behind loses its connection, buffer and all. On each connection it starts over from what ExaBGP knows.
So each begins with `reset` and `version`, and what ExaBGP says is dropped until the latter is answered: no answer to a
command of an earlier connection, or of an earlier pipe, ever reaches a later one.

Now and then it asks ExaBGP for its version. The answer is written down as a sign of life, `<CLOCK_BOOTTIME seconds>
<limit seconds>`, which gets old when ExaBGP or this process stands still. A line `:hold <seconds>` of the agent's is
for this process: the shortest hold time in force. ExaBGP is asked nine times in it; old is a third of it.

ExaBGP runs it as a file: standard library only, so that it is small and starts fast.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

ALIVE = "bgp-alive"
"""The sign of life, in the run folder."""
SOCKET = "bgp.sock"
"""Where the agent listens, in the run folder."""
_CHUNK = 1 << 16
_TO_AGENT_MOST = 16 << 20
"""Bytes that the agent may be behind; ExaBGP tells of a million prefixes in about twice as much."""
_TO_EXABGP_MOST = 1 << 20
_AGAIN_FIRST_S, _AGAIN_MOST_S = 0.02, 0.5
_DEFAULT_HOLD_S = 90
_VERSION = b"version\n"


class Pipe:
    """Both ends, and what waits for each. Descriptors: ExaBGP's words come from `source`, its commands go to `sink`."""

    def __init__(self, folder: str, hold_s: int, source: int = 0, sink: int = 1) -> None:
        self._folder = folder
        self._hold_s = hold_s or _DEFAULT_HOLD_S
        self._source, self._sink = source, sink
        self._agent: socket.socket | None = None
        self._said, self._ordered = Lines(), Lines()
        self._to_agent, self._to_exabgp = bytearray(), bytearray()
        self._asked = self._answered = 0
        self._answering = False
        self._open_at = 0
        """The connection carries what ExaBGP says from this answer on."""
        self._ask_s = self._connect_s = 0.0
        self._again_s = _AGAIN_FIRST_S
        os.set_blocking(source, False)
        os.set_blocking(sink, False)

    def run(self) -> None:
        """Until ExaBGP is gone."""
        while True:
            now = time.monotonic()
            if now >= self._ask_s:
                self._ask_s = now + self._hold_s / 9
                if self._asked == self._answered:
                    self._ask(b"")
            if self._agent is None and now >= self._connect_s:
                self._connect(now)
            if not self._turn():
                return

    # --- one turn ---

    def _turn(self) -> bool:
        """Waits, then moves what can be moved. False once ExaBGP is gone."""
        poller = select.poll()
        poller.register(self._source, select.POLLIN)
        if self._to_exabgp:
            poller.register(self._sink, select.POLLOUT)
        room = False
        if self._agent is not None:
            room = self._open and len(self._to_exabgp) < _TO_EXABGP_MOST
            poller.register(self._agent, (select.POLLIN if room else 0) | (select.POLLOUT if self._to_agent else 0))
        wake_s = self._ask_s if self._agent is not None else min(self._ask_s, self._connect_s)
        told = dict(poller.poll(max(0.0, wake_s - time.monotonic()) * 1000))
        if (
            self._agent is not None
            and not room
            and told.get(self._agent.fileno(), 0) & (select.POLLHUP | select.POLLERR)
        ):
            # poll would tell of it again and again, for as long as ExaBGP takes nothing.
            self._lose("went away")
        try:
            if not self._listen_to_exabgp():
                return False
            self._speak_to_exabgp()
        except BrokenPipeError:
            return False
        self._serve_agent()
        return True

    def _listen_to_exabgp(self) -> bool:
        try:
            data = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return True
        for line in self._said.feed(data):
            self._hear(line)
        return bool(data)

    def _speak_to_exabgp(self) -> None:
        try:
            while self._to_exabgp:
                del self._to_exabgp[: os.write(self._sink, self._to_exabgp)]
        except BlockingIOError:
            pass

    def _serve_agent(self) -> None:
        agent = self._agent
        if agent is None:
            return
        try:
            if self._to_agent:
                del self._to_agent[: agent.send(self._to_agent)]
        except BlockingIOError:
            pass
        except OSError:
            return self._lose("went away")
        if len(self._to_agent) > _TO_AGENT_MOST:
            return self._lose(f"is more than {_TO_AGENT_MOST >> 20} MiB behind; it starts over")
        if self._open and len(self._to_exabgp) < _TO_EXABGP_MOST:
            self._obey(agent)

    def _obey(self, agent: socket.socket) -> None:
        try:
            data = agent.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self._lose("went away")
        for line in self._ordered.feed(data):
            if line.startswith(b":hold "):
                self._hold_s = int(line[6:]) or _DEFAULT_HOLD_S
                self._ask_s = 0.0
            else:
                self._to_exabgp += line

    # --- ExaBGP's words ---

    def _ask(self, before: bytes) -> None:
        self._asked += 1
        self._to_exabgp += before + _VERSION

    def _hear(self, line: bytes) -> None:
        """Keeps the answers to its own question, `exabgp <version>` and `done` right after it, to itself."""
        if self._asked > self._answered and line.startswith(b"exabgp "):
            self._answering = True
        elif self._answering:
            self._answering = False
            self._answered += 1
            self._live()
        elif self._open:
            self._to_agent += line

    def _live(self) -> None:
        path = os.path.join(self._folder, ALIVE)
        at = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            write_sign(path, at, self._hold_s / 3)
        except OSError as error:
            print(f"bgp pipe: no sign of life in {path}: {error.strerror}", file=sys.stderr, flush=True)

    # --- the agent's socket ---

    @property
    def _open(self) -> bool:
        return self._agent is not None and self._answered >= self._open_at

    def _connect(self, now: float) -> None:
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            agent.connect(os.path.join(self._folder, SOCKET))
        except OSError:
            agent.close()
            self._connect_s = now + self._again_s
            self._again_s = min(self._again_s * 2, _AGAIN_MOST_S)
            return
        self._again_s = _AGAIN_FIRST_S
        self._agent = agent
        self._ask(b"reset\n")
        self._open_at = self._asked

    def _lose(self, why: str) -> None:
        """Ends the connection; what it had under way goes with it."""
        assert self._agent is not None
        print(f"bgp pipe: the agent {why}", file=sys.stderr, flush=True)
        self._agent.close()
        self._agent = None
        self._to_agent.clear()
        self._ordered = Lines()
        self._connect_s = time.monotonic() + self._again_s


class Lines:
    """Cuts a stream into lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, each with its end."""
        head, end, rest = data.rpartition(b"\n")
        if not end:
            self._parts.append(data)
            return []
        whole = b"".join(self._parts) + head
        self._parts = [rest]
        return [line + b"\n" for line in whole.split(b"\n")]


def write_sign(path: str, at_s: float, limit_s: float) -> None:
    """Writes a sign of life whole: when (CLOCK_BOOTTIME), and for how long it is one. Raises OSError."""
    fresh = path + ".new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(f"{at_s:.1f} {max(1, round(limit_s))}\n")
    os.rename(fresh, path)


if __name__ == "__main__":
    Pipe(sys.argv[1], int(sys.argv[2])).run()
