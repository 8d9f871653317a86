"""Log output: one line a record, for people or as JSON."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from calipy import logs


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger, put back afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.NOTSET)


def written(style: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, style, stream)
    return stream


def test_text_is_time_level_part_and_message() -> None:
    stream = written("text")
    logging.getLogger("calipy.felix.dataplane").info("%d routes", 3)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    felix\.dataplane: 3 routes\n", stream.getvalue()
    )


def test_json_is_one_object_a_line() -> None:
    stream = written("json")
    logging.getLogger("calipy.agent").warning("two\nlines %s", "\u2028")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry == {"level": "warning", "logger": "calipy.agent", "message": "two\nlines \u2028"}


@pytest.mark.parametrize("style", ["text", "json"])
def test_whatever_a_record_holds_it_stays_one_line(style: str) -> None:
    stream = written(style)
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        logging.getLogger("calipy").exception("pod %s", "a\r\n\x1b[31mb\u2029")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "ValueError: broken" in lines[0]
    assert "\x1b" not in lines[0]


# level | levels of records that are written
LEVELS = [
    ("Trace", [10, 20, 30, 40, 50]),
    ("debug", [10, 20, 30, 40, 50]),
    ("Info", [20, 30, 40, 50]),
    ("WARNING", [30, 40, 50]),
    ("Error", [40, 50]),
    ("Fatal", [50]),
    ("None", []),
]


@pytest.mark.parametrize(("level", "seen"), LEVELS)
def test_levels_are_felixs_and_can_change(level: str, seen: list[int]) -> None:
    stream = written("text", "error")
    logs.set_level(level)
    for number in (10, 20, 30, 40, 50):
        logging.getLogger("calipy").log(number, "<%d>", number)
    assert [int(found) for found in re.findall(r"<(\d+)>", stream.getvalue())] == seen


def test_configuring_again_does_not_write_twice() -> None:
    written("text")
    stream = written("text")
    logging.getLogger("calipy").error("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_asyncio_does_not_name_its_selector() -> None:
    stream = written("text", "debug")
    asyncio.run(asyncio.sleep(0), debug=False)
    assert stream.getvalue() == ""
