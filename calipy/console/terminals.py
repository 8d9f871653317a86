"""Whether people look at a stream, and what it can show them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def is_terminal(stream: TextIO) -> bool:
    """True where cursor movement and colours make sense; a pipe, a file or a dumb terminal gets plain text."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def shows(stream: TextIO, text: str) -> bool:
    """True if the stream's encoding has all of `text`."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def rich_console(stream: TextIO) -> Console:
    """rich's console on a terminal. Nothing is highlighted or read as markup by itself: names may hold brackets."""
    from rich.console import Console

    # rich asks the standard streams for the width, whatever stream it writes to.
    columns = 0 if os.environ.get("COLUMNS") else os.get_terminal_size(stream.fileno()).columns
    return Console(file=stream, width=columns or None, highlight=False, markup=False, emoji=False)
