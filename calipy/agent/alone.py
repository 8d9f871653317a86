"""One agent a node: whoever has locked a file in the run folder. Without the lock an agent touches nothing, for what it
would touch first is the other's: its sockets, and on kernels without owners of tables its rules."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path

FILE = "agent.lock"
_AGAIN_S = 0.5
_NAME_MOST = 4096
log = logging.getLogger("calipy.agent")


class Lock:
    """The lock of one file, once it is had. It lasts until it is closed or the process ends, however it does
    (flock(2))."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where there can be no such file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._had = False

    def take(self) -> bool:
        """True once this process has it."""
        if not self._had and _locks(self._descriptor):
            self._had = True
            _sign(self._descriptor, self._path)
        return self._had

    def holder(self) -> str:
        """Who has it meanwhile, in a sentence."""
        who = _holder(self._descriptor)
        return f"another agent is alive on this node, {who}: it holds {self._path}; waiting for its end"

    def close(self) -> None:
        """Gives it up."""
        os.close(self._descriptor)


async def alone(lock: Lock, tell: Callable[[str], object]) -> None:
    """Returns once this process has the lock. `tell` is told meanwhile who has it."""
    import asyncio  # a quarter of what is imported before the skeleton stands, for what is seldom waited for

    while not lock.take():
        tell(lock.holder())
        await asyncio.sleep(_AGAIN_S)  # inotify tells of a file's end before its lock is gone


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Who has signed last: with its process id as it sees it, which is another's in a container of its own."""
    signed = os.pread(descriptor, _NAME_MOST, 0).decode(errors="replace").strip()
    pid, _, command = signed.partition(" ")
    return f"process {pid} ({command})" if command else "which has not yet signed its lock"


def _sign(descriptor: int, path: Path) -> None:
    """Says who has the lock. On a full disk it is held unsigned."""
    command = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").strip()
    signature = b"%d %s\n" % (os.getpid(), command[: _NAME_MOST - 32])
    try:
        os.pwrite(descriptor, signature, 0)
        os.ftruncate(descriptor, len(signature))
    except OSError as error:
        log.warning("%s can't be signed: %s; whoever waits for it won't know for whom", path, error.strerror)
