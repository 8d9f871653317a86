"""A real pseudo-terminal to look at."""

from __future__ import annotations

import io
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from fcntl import ioctl

import pytest


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a function that writes to a stream makes appear on a terminal of some width."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for variable in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)

    def shown_on_terminal(columns: int, write: Callable[[io.TextIOWrapper], None], *, encoding: str = "utf-8") -> str:
        """What appears on a real pseudo-terminal of that width, without colours and cursor movements."""
        leader, follower = pty.openpty()
        ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        try:
            with open(follower, "w", encoding=encoding, errors="replace") as stream:
                write(stream)
                os.set_blocking(leader, False)
                got = b""
                while True:
                    try:
                        got += os.read(leader, 1 << 16)
                    except BlockingIOError:
                        break
        finally:
            os.close(leader)
        text = got.decode(encoding).replace("\r\n", "\n")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)

    return shown_on_terminal
