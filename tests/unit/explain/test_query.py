"""Questions and answers of any length on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from calipy.explain import query
from calipy.explain.query import Unanswered, ask


@asynccontextmanager
async def served(path: Path, answers: Mapping[str, query.Answer]) -> AsyncIterator[None]:
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(query.serve(path, answers))
        await asyncio.sleep(0)
        yield
        task.cancel()


async def said(path: Path, data: bytes) -> bytes:
    """What comes back for these bytes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_an_answer_and_what_is_no_question(tmp_path: Path) -> None:
    path = tmp_path / "q"
    async with served(path, {"seven": lambda: 7, "none": lambda: iter(())}):
        assert await ask(path, "seven", int) == 7
        assert await ask(path, "none", tuple[int, ...]) == ()
        with pytest.raises(Unanswered, match="nobody knows the question 'eight'; known are none, seven"):
            await ask(path, "eight", int)
        with pytest.raises(Unanswered, match="q: the answer can't be read: Expected `str`, got `int`"):
            await ask(path, "seven", str)
        assert await said(path, b"7\n") == (
            b'{"error":"the question can\'t be read: Expected `object`, got `int`"}\n'
        )  # fmt: skip
        too_long = b'{"question":"' + b"x" * 5000 + b'"}\n'
        assert await said(path, too_long) == (
            b'{"error":"the question can\'t be read: it is longer than 4096 bytes"}\n'
        )  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [lambda: ["x" * 999] * 5000, lambda: iter(["x" * 999] * 5000), lambda: iter([None, "x" * 5_000_000, None])],
    ids=["whole", "bit by bit", "one bit of it"],
)
async def test_an_answer_of_megabytes(tmp_path: Path, answer: query.Answer) -> None:
    async with served(tmp_path / "q", {"much": answer}):
        found = await ask(tmp_path / "q", "much", tuple[str, ...], timeout_s=30)
    assert found == tuple(element for element in answer() if element is not None)  # type: ignore[attr-defined]


async def test_a_list_that_is_told_bit_by_bit_leaves_the_loop_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "SLICE_S", 0.0)
    turn, seen = 0, []

    def elements() -> Iterator[int | None]:
        for number in range(100):
            seen.append(turn)
            yield number if number % 2 else None

    async with served(tmp_path / "q", {"numbers": elements}), asyncio.TaskGroup() as group:
        asked = group.create_task(ask(tmp_path / "q", "numbers", list[int]))
        while not asked.done():
            turn += 1
            await asyncio.sleep(0)
    assert asked.result() == list(range(1, 100, 2))
    assert len(set(seen)) == 100, "each element has a turn of its own"


async def test_an_agent_that_ends_in_the_middle_of_its_answer(tmp_path: Path) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"answer":[1,')
        writer.close()

    async with await asyncio.start_unix_server(half, tmp_path / "q"):
        with pytest.raises(Unanswered, match=r"q: the answer broke off after 13 bytes"):
            await ask(tmp_path / "q", "x", list[int])


async def test_an_agent_that_is_not_there_or_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="No such file or directory: is the agent running"):
        await ask(tmp_path / "q", "x", int)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the caller has given up
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    async with await asyncio.start_unix_server(silent, tmp_path / "q"):
        with pytest.raises(Unanswered, match=r"no answer within 0\.05 s"):
            await ask(tmp_path / "q", "x", int, timeout_s=0.05)
        await gone.wait()


async def test_who_asks_and_does_not_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "_ANSWER_TIMEOUT_S", 0.05)
    async with served(tmp_path / "q", {"much": lambda: "x" * 50_000_000, "seven": lambda: 7}):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "q", limit=1)
        writer.write(b'{"question":"much"}\n')
        await asyncio.sleep(0.3)
        assert len(await reader.read()) < 50_000_000
        writer.close()
        assert await ask(tmp_path / "q", "seven", int) == 7
