"""The agent's query socket, and how to ask on it.

One line of JSON a connection, `{"question": "status"}`, and one line back: `{"answer": ...}` or `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from calipy.sockets import listen

_QUESTION_TIMEOUT_S = 5.0
_ANSWER_MOST = 64 << 20
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


async def serve(path: Path, answers: Mapping[str, Callable[[], object]]) -> None:
    """Answers questions by name, without end. Raises OSError where the socket can't be made."""
    listener = listen(path)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                async with asyncio.timeout(_QUESTION_TIMEOUT_S):
                    line = await reader.readline()
                    writer.write(msgspec.json.encode(_reply(line, answers)) + b"\n")
                    await writer.drain()
            except (TimeoutError, OSError) as error:
                log.debug("a question was not answered: %s", error or "it took too long")

    server = await asyncio.start_unix_server(reply, sock=listener)
    async with server:
        await server.serve_forever()


def _reply(line: bytes, answers: Mapping[str, Callable[[], object]]) -> Reply:
    try:
        question = msgspec.json.decode(line, type=Question).question
    except msgspec.MsgspecError as error:
        return Reply(error=f"the question can't be read: {error}")
    if question not in answers:
        return Reply(error=f"nobody knows the question {question!r}; known are {', '.join(sorted(answers))}")
    return Reply(answer=Raw(msgspec.json.encode(answers[question]())))


async def ask(path: Path, question: str, kind: type[T], timeout_s: float = 5.0) -> T:
    """The answer of the agent that listens at `path`, as a `kind`. Raises Unanswered."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=_ANSWER_MOST)
            with contextlib.closing(writer):
                writer.write(msgspec.json.encode(Question(question)) + b"\n")
                line = await reader.readline()
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
