"""Small files that others read: written beside their place, synced, renamed into it."""

from __future__ import annotations

import os
from pathlib import Path


def put(path: Path, text: str, mode: int = 0o644) -> None:
    """Replaces a file by `text`, whole or not at all, even across a power cut; nothing where it is so already."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(new, path)
