"""Bearer tokens: where they come from, and when they are read again. None is ever shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from calipy.datastore.stores import Unavailable

_FRESH_S = 60.0
"""As client-go: the kubelet renews a token long before it ends."""


class Authorization(Protocol):
    """What a request says of who sends it."""

    def header(self) -> str:
        """The Authorization header's value, "" for none. Raises Unavailable where it can't be had."""
        ...

    def renew(self) -> bool:
        """The server has refused it: True if there is another one now. Raises Unavailable."""
        ...


class Fixed:
    """The same one for ever; "" where a client certificate says it all, or nobody."""

    def __init__(self, header: str = "") -> None:
        self._header = header

    def header(self) -> str:
        """As it was given."""
        return self._header

    def renew(self) -> bool:
        """There is no other one."""
        return False


class TokenFile:
    """A token in a file that others renew, as the kubelet does for service accounts."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._path = path
        self._clock = clock
        self._token = ""
        self._read_at = 0.0

    def header(self) -> str:
        """Read again once a minute."""
        if not self._token or self._clock() - self._read_at >= _FRESH_S:
            self._read()
        return f"Bearer {self._token}"

    def renew(self) -> bool:
        """Reads the file at once."""
        before = self._token
        self._read()
        return self._token != before

    def _read(self) -> None:
        try:
            token = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            remedy = "mount the service account's token there, or name another file"
            raise Unavailable(f"token file {self._path}: can't be read: {reason}; {remedy}") from None
        if not token:
            raise Unavailable(f"token file {self._path}: is empty; check whoever renews it")
        self._token, self._read_at = token, self._clock()
