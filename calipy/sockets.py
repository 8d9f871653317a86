"""Unix sockets on which only root may talk to this process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_BACKLOG = 1024


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
