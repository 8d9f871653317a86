"""A connection of ExaBGP's pipe: one command at a time, so that each answer is that of the command before it.

ExaBGP answers with `done` or `error`, which name no command, and not in the order of the commands. Its own news, JSON
objects, come between an answer's lines.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

ANSWER_TIMEOUT_S = 30.0
_LINE_MOST = 64 << 20
_SLICE_S = 0.005
_NEWS = b'{ "exabgp"'
"""How ExaBGP begins what it says unasked."""
log = logging.getLogger("calipy.bgp")


class Gone(Exception):
    """The connection is no good any more; the message says why."""


class CommandRefused(Exception):
    """ExaBGP takes a command not; its own log says why."""


class Channel:
    """`hear` gets each line of news, `each` of a question each line of its answer, in the order in which ExaBGP wrote
    them all."""

    @classmethod
    async def on(cls, raw: socket.socket, hear: Callable[[bytes], None]) -> Channel:
        """Over a connected socket, which is the channel's from now on."""
        reader, writer = await asyncio.open_unix_connection(sock=raw, limit=_LINE_MOST)
        return cls(reader, writer, hear)

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hear: Callable[[bytes], None]
    ) -> None:
        self._reader, self._writer = reader, writer
        self._hear = hear
        self._each: Callable[[bytes], None] = self._unasked
        self._answer: asyncio.Future[bool] | None = None

    async def listen(self) -> None:
        """Reads until the connection ends, or a line is longer than any that makes sense."""
        until = time.monotonic() + _SLICE_S
        try:
            while line := await self._next():
                self._take(line)
                if time.monotonic() >= until:
                    await asyncio.sleep(0)
                    until = time.monotonic() + _SLICE_S
        finally:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(Gone("the pipe has hung up"))

    async def _next(self) -> bytes:
        """A line; empty at the end."""
        try:
            return await self._reader.readline()
        except (OSError, ValueError) as error:
            log.warning("the pipe's connection: %s", error)
            return b""

    def _take(self, line: bytes) -> None:
        if line.startswith(_NEWS):
            self._hear(line)
        elif line in (b"done\n", b"error\n") and self._answer is not None and not self._answer.done():
            self._answer.set_result(line == b"done\n")
        else:
            self._each(line)

    async def ask(self, command: str, each: Callable[[bytes], None] | None = None) -> None:
        """Has ExaBGP carry out a command. Raises CommandRefused, or Gone where no answer came."""
        self._each = each or self._unasked
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self.say(command)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                taken = await self._answer
        except TimeoutError as error:
            raise Gone(f"no answer within {ANSWER_TIMEOUT_S:g} s to {command[:60]!r}") from error
        finally:
            self._answer, self._each = None, self._unasked
        if not taken:
            raise CommandRefused(command)

    def say(self, line: str) -> None:
        """Sends a line that has no answer."""
        self._writer.write(line.encode("ascii") + b"\n")

    def close(self) -> None:
        """Hangs up."""
        self._writer.close()

    @staticmethod
    def _unasked(line: bytes) -> None:
        """An answer's words that nobody wants: `reload in progress`."""
