"""Unix sockets on which only root may talk to this process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

_BACKLOG = 1024
_AGAIN_S = 0.1
log = logging.getLogger("calipy.sockets")


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, mode 0600 from its first moment. What an earlier process left there goes. Raises
    OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        former = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(former)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


async def accept(listener: socket.socket) -> socket.socket:
    """The next connection, not blocking. One that can't be had now (this process has no descriptor left, say) waits in
    the backlog: it ends nobody."""
    loop = asyncio.get_running_loop()
    told = False
    while True:
        try:
            raw, _ = await loop.sock_accept(listener)
            return raw
        except OSError as error:
            if not told:
                log.error("%s: a connection can't be taken now: %s", listener.getsockname(), error)
            told = True
        await asyncio.sleep(_AGAIN_S)  # nobody tells when a descriptor is free
