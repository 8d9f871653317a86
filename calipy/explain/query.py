"""The agent's query socket, and how to ask on it.

One line of JSON a connection, `{"question": "status"}`, and one line back, of any length: `{"answer": ...}` or
`{"error": "..."}`. The agent closes the connection behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from calipy.sockets import listen

_QUESTION_TIMEOUT_S, _ANSWER_TIMEOUT_S = 5.0, 30.0
_QUESTION_MOST = 4096
"""Bytes."""
SLICE_S = 0.005
"""How long an answer may hold the loop in one go."""
log = logging.getLogger("calipy.explain.query")
T = TypeVar("T")


class Unanswered(Exception):
    """The agent gave no answer; the message says why."""


class Question(Struct, frozen=True, gc=False):
    """What is asked."""

    question: str


class Reply(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What came back."""

    answer: Raw = Raw(b"null")
    error: str = ""


Answer = Callable[[], object]
"""Gives what is to be encoded. An iterator is a list whose elements are made while it is written, in slices; None among
them is no element, but says that there has been work."""


async def serve(path: Path, answers: Mapping[str, Answer]) -> None:
    """Answers questions by name, without end. Raises OSError where the socket can't be made."""
    listener = listen(path)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                async with asyncio.timeout(_QUESTION_TIMEOUT_S):
                    answer = _found(await _question(reader), answers)
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    await _write(writer, answer)
            except (TimeoutError, OSError) as error:
                log.debug("a question was not answered: %s", error or "it took too long")
                writer.transport.abort()  # else what is not yet written waits for whoever doesn't read it

    server = await asyncio.start_unix_server(reply, sock=listener, limit=_QUESTION_MOST)
    async with server:
        await server.serve_forever()


async def _question(reader: asyncio.StreamReader) -> bytes | Reply:
    try:
        return await reader.readline()
    except ValueError:  # LimitOverrunError in disguise
        return Reply(error=f"the question can't be read: it is longer than {_QUESTION_MOST} bytes")


def _found(line: bytes | Reply, answers: Mapping[str, Answer]) -> object:
    """What is to be written: an error's Reply, or what the answer's maker gives."""
    if isinstance(line, Reply):
        return line
    try:
        question = msgspec.json.decode(line, type=Question).question
    except msgspec.MsgspecError as error:
        return Reply(error=f"the question can't be read: {error}")
    if question not in answers:
        return Reply(error=f"nobody knows the question {question!r}; known are {', '.join(sorted(answers))}")
    return answers[question]()


async def _write(writer: asyncio.StreamWriter, answer: object) -> None:
    pieces: list[bytes] = []
    until = time.monotonic() + SLICE_S
    for piece in _pieces(answer):
        pieces.append(piece)
        if time.monotonic() >= until:
            writer.write(b"".join(pieces))
            pieces.clear()
            await writer.drain()
            await asyncio.sleep(0)
            until = time.monotonic() + SLICE_S
    writer.write(b"".join(pieces))
    await writer.drain()


def _pieces(answer: object) -> Iterator[bytes]:
    """The line, bit by bit."""
    if isinstance(answer, Reply):
        yield msgspec.json.encode(answer)
    elif isinstance(answer, Iterator):
        yield b'{"answer":['
        comma = b""
        for element in answer:
            yield b"" if element is None else comma + msgspec.json.encode(element)
            comma = comma if element is None else b","
        yield b"]}"
    else:
        yield msgspec.json.encode(Reply(answer=Raw(msgspec.json.encode(answer))))
    yield b"\n"


async def ask(path: Path, question: str, kind: type[T], timeout_s: float = 5.0) -> T:
    """The answer of the agent that listens at `path`, as a `kind`. Raises Unanswered."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            with contextlib.closing(writer):
                writer.write(msgspec.json.encode(Question(question)) + b"\n")
                line = await reader.read()
        if not line.endswith(b"\n"):
            raise Unanswered(f"{path}: the answer broke off after {len(line)} bytes")
        reply = msgspec.json.decode(line, type=Reply)
        if reply.error:
            raise Unanswered(reply.error)
        return msgspec.json.decode(reply.answer, type=kind)
    except TimeoutError as error:
        raise Unanswered(f"{path}: no answer within {timeout_s:g} s") from error
    except OSError as error:
        raise Unanswered(f"{path}: {error.strerror}: is the agent running?") from error
    except msgspec.MsgspecError as error:
        raise Unanswered(f"{path}: the answer can't be read: {error}") from error
