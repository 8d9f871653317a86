"""Puts ExaBGP's configuration in place: only what ExaBGP itself has found sound, and whole.

One file that it can't parse, and its parser takes no other until it is restarted.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from calipy.bgp.exabgp_config import environment

VALIDATION_TIMEOUT_S = 30.0


class Rejected(Exception):
    """ExaBGP finds a file unsound; the message says what it said."""


async def install(path: Path, text: str, secrets: Iterable[str], overtaken: Callable[[], bool]) -> bool:
    """Writes `text` beside `path`, has ExaBGP check it, and renames it into place, mode 0600; False = it wasn't, for it
    was `overtaken` meanwhile. Raises Rejected, or OSError; then `path` stays as it was. What ExaBGP says of it is told
    on without the `secrets`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    try:
        _write(fresh, text)
        await _validate(fresh, tuple(secrets))
        if overtaken():
            return False
        fresh.rename(path)
        return True
    finally:
        fresh.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


async def _validate(path: Path, secrets: tuple[str, ...]) -> None:
    with tempfile.TemporaryFile() as said:
        child = _validator(path, said)
        try:
            async with asyncio.timeout(VALIDATION_TIMEOUT_S):
                await _ended(child.pid)
        except TimeoutError as error:
            raise Rejected(f"exabgp validate took longer than {VALIDATION_TIMEOUT_S:g} s") from error
        finally:
            child.kill()
            status = child.wait()
        if status:
            said.seek(0)
            words = _words(said.read().decode(errors="replace"), secrets)
            raise Rejected(words or f"exabgp validate ended with status {status}")


def _validator(path: Path, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Not asyncio's kind of child: each of those takes a thread to wait for it."""
    command = [sys.executable, "-m", "calipy.bgp.speaker", "validate", str(path)]
    variables = {**os.environ, **environment()}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=variables)


async def _ended(pid: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _words(output: str, secrets: tuple[str, ...]) -> str:
    """What ExaBGP complains of: all after `error: <file>`, or its last lines."""
    for secret in secrets:
        output = output.replace(secret, "(password)")
    lines = [line.strip() for line in output.splitlines() if line.strip() and "md5-password" not in line]
    starts = [at for at, line in enumerate(lines) if line.startswith("error: ")]
    return " | ".join(lines[starts[0] :] if starts else lines[-6:])[-1000:]
