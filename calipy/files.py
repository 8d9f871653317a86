"""Files that others read, or that must outlive a power cut: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Makes `path` hold `data`, with that mode whatever the umask: a reader has the old file or the new one, never a
    part, and where it fails the old one stays. With `durable` that holds across a power cut too: blocks until the disk
    has it, so on an event loop it is a thread's. Makes the folder where it is missing. Raises OSError,
    which names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(fresh, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    if durable:
        _sync(path.parent)


def put(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """The same, durably; a file that holds `data` already is left alone, so that nobody who watches it reads it anew.
    True if it was written. Raises OSError."""
    if path.is_file() and path.read_bytes() == data:
        return False
    replace(path, data, mode=mode)
    return True


def _sync(folder: Path) -> None:
    """A name outlives a power cut once its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
