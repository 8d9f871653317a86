"""The ready file: from it the forwarder answers STATUS alone, whether or not an agent is there to be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from calipy import files

EVERY_S = 5.0
"""How often the file is rewritten while the agent can serve ADD."""


def line(now_s: float, grace_s: float) -> str:
    """The file's one line: seconds since boot (CLOCK_BOOTTIME), and for how long after these STATUS stays OK."""
    return f"{now_s:.3f} {grace_s:g}\n"


def write(path: Path, now_s: float, grace_s: float) -> None:
    """Replaces the file, so that a reader has the old line or the new one. Raises OSError."""
    files.replace(path, line(now_s, grace_s).encode(), durable=False)  # it tells of this boot only


async def keep(
    path: Path,
    obstacle: Callable[[], str],
    grace_s: float,
    tell: Callable[[str], object],
    every_s: float = EVERY_S,
) -> None:
    """Rewrites the file without end, as long as `obstacle` names no reason why ADD can't be served. While it does, the
    file grows old; it goes on telling when the agent was last ready. So it does where it can't be written: `tell` gets
    what is wrong each time, and "" when it is written."""
    while True:
        if not obstacle():
            try:
                write(path, time.clock_gettime(time.CLOCK_BOOTTIME), grace_s)
                tell("")
            except OSError as error:
                tell(f"{path} can't be written: {error.strerror}; until it can, STATUS will say not ready")
        await asyncio.sleep(every_s)
