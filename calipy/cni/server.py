"""The agent's socket for CNI: takes requests from forwarders, bounded, and notices those that died.

A forwarder sends one line of JSON, `{"env": {...}, "stdin": "..."}`, and with its first byte the container's network
namespace as a descriptor (SCM_RIGHTS, unix(7)), where it could open one. It gets a digit, 0 = done or 1 = failed, and
what it is to print, until the end of the stream. Raw sockets, because asyncio's streams lose descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from calipy.cni.errors import CniError, Code
from calipy.cni.protocol import NEWEST
from calipy.cni.results import render_error
from calipy.sockets import accept, listen

AT_WORK_MOST = 32
"""So many requests are worked on at once; the rest queue."""
REQUEST_MOST = 16 << 20
"""Bytes in a request: GC's list names all attachments of a node."""
_CHUNK = 1 << 16
log = logging.getLogger("calipy.cni.server")


class Call(Struct, frozen=True, gc=False, kw_only=True):
    """What a forwarder sent."""

    env: dict[str, str]
    stdin: str = ""
    dry_run: bool = msgspec.field(name="dryRun", default=False)
    """GC only shows what it would do."""


class Answer(Struct, frozen=True, gc=False):
    """What the forwarder is to print, and whether it has succeeded."""

    succeeded: bool
    output: bytes


class Handler(Protocol):
    """Who answers calls."""

    async def answer(self, call: Call, namespace: int | None) -> Answer:
        """Answers a call; never raises but when cancelled. `namespace` is a descriptor that the server closes."""
        ...

    def gives_way(self, call: Call) -> bool:
        """True if a call that is being worked on is given up when its caller is dead."""
        ...

    async def undo(self, call: Call) -> None:
        """Takes back what a call has made whose caller died before it got the answer."""
        ...


class Connection:
    """One forwarder: its socket, and the task that serves it."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.task: asyncio.Task[None] | None = None
        self.at_work = False
        self.gives_way = True
        self.dead = False

    def hang_up(self) -> None:
        """The forwarder is dead."""
        self.dead = True
        if self.task is not None and (not self.at_work or self.gives_way):
            self.task.cancel()


class Server:
    """Serves one Unix socket, mode 0600."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._slots = asyncio.Semaphore(AT_WORK_MOST)
        self._connections: dict[int, Connection] = {}
        self._hang_ups = select.epoll()

    async def run(self) -> None:
        """Serves without end; when cancelled, those at work are cancelled and roll back. Raises OSError when the
        socket can't be made."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(self._hang_ups), contextlib.closing(listen(self._path)) as listener:
            loop.add_reader(self._hang_ups.fileno(), self._see_hang_ups)
            try:
                async with asyncio.TaskGroup() as group:
                    while True:
                        raw = await accept(listener)
                        connection = Connection(raw)
                        self._connections[raw.fileno()] = connection
                        # No event asked for: hang-ups and errors are always told (epoll_ctl(2)).
                        self._hang_ups.register(raw.fileno(), 0)
                        connection.task = group.create_task(self._serve(connection))
            finally:
                loop.remove_reader(self._hang_ups.fileno())

    def _see_hang_ups(self) -> None:
        for descriptor, _ in self._hang_ups.poll(0):
            self._hang_ups.unregister(descriptor)
            self._connections[descriptor].hang_up()

    async def _serve(self, connection: Connection) -> None:
        descriptors: list[int] = []
        try:
            line = await _receive(connection.raw, descriptors)
            if line is not None:
                await self._work(connection, line, descriptors[0] if descriptors else None)
        except OSError as error:
            log.warning("a CNI request's connection broke: %s", error)
        except Exception:
            # One request's misfortune is not that of the others in the group.
            log.exception("a CNI request was given up")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            self._close(connection)

    async def _work(self, connection: Connection, line: bytes, namespace: int | None) -> None:
        call = _decode(line)
        if call is None:
            error = CniError(Code.UNDECODABLE, "the agent can't read its forwarder's request", "install both anew")
            await _deliver(connection, Answer(False, render_error(error, NEWEST)))
            return
        connection.gives_way = self._handler.gives_way(call)
        async with self._slots:
            connection.at_work = True
            answer = await self._handler.answer(call, namespace)
            # From here on the work is done: a caller that dies now makes its undoing necessary, not its end.
            connection.gives_way = False
            if not await _deliver(connection, answer) and answer.succeeded:
                await self._handler.undo(call)

    def _close(self, connection: Connection) -> None:
        descriptor = connection.raw.fileno()
        del self._connections[descriptor]
        if not connection.dead:
            self._hang_ups.unregister(descriptor)
        connection.raw.close()


def _decode(line: bytes) -> Call | None:
    try:
        return msgspec.json.decode(line, type=Call)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("a CNI request can't be read: %s", error)
        return None


async def _receive(raw: socket.socket, descriptors: list[int]) -> bytes | None:
    """One line, its descriptors put into `descriptors` as they come; None if the forwarder sent no whole line."""
    data = bytearray()
    while not data.endswith(b"\n"):
        try:
            chunk, received, _, _ = socket.recv_fds(raw, _CHUNK, 4, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await _readable(raw)
            continue
        descriptors += received
        data += chunk
        if not chunk or len(data) > REQUEST_MOST:
            log.warning("a CNI request was refused: %d bytes without an end of line", len(data))
            return None
    return bytes(data)


async def _readable(raw: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(raw, wake)
    try:
        await future
    finally:
        loop.remove_reader(raw)


async def _deliver(connection: Connection, answer: Answer) -> bool:
    """True if the answer was handed to a living forwarder. One that dies before it prints it is not to be told from
    one that has: then the runtime, with no result, asks for DEL."""
    if connection.dead:
        return False
    data = (b"0" if answer.succeeded else b"1") + answer.output
    try:
        with contextlib.suppress(BlockingIOError):
            data = data[connection.raw.send(data) :]
        if data:
            await asyncio.get_running_loop().sock_sendall(connection.raw, data)
    except OSError:
        return False
    return True
