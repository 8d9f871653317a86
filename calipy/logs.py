"""Log output: one line a record, for people or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "none": logging.CRITICAL + 1,
}
"""Felix's levels (logSeverityScreen, in any case) and ours."""


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123 INFO    felix.dataplane: message`. A record stays one line: what would break it is
    escaped, and an exception follows in the same way."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        name = record.name.removeprefix("calipy.")
        line = f"{stamp}.{int(record.msecs):03d} {record.levelname:7} {name}: {record.getMessage()}"
        if record.exc_info:
            line = f"{line}: {self.formatException(record.exc_info)}"
        return _one_line(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, error."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        entry = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Sends all of `level` (a name of LEVELS) and above to `stream`, standard error if None; `style` is text or
    json."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger("asyncio").setLevel(logging.INFO)  # below, it only names its selector
    set_level(level)


def set_level(level: str) -> None:
    """Changes the level, a name of LEVELS in any case."""
    logging.getLogger().setLevel(LEVELS[level.lower()])


def _one_line(text: str) -> str:
    return "".join(_BREAKS.get(character, character) for character in text)


_BREAKS = {character: repr(character)[1:-1] for character in "\n\r\v\f\x1b\x1c\x1d\x1e\x85\u2028\u2029"}
