"""Objects that can't be decoded: left out of lists and watches, and said once for each revision."""

from __future__ import annotations

import logging

from calipy.datastore.stores import Stored
from calipy.resources.metadata import Key, Kind, R, Refused, decode

_LOG = logging.getLogger("calipy.datastore")


class Misfits:
    """Decodes objects, and remembers at which revision each undecodable one was logged."""

    def __init__(self) -> None:
        self._logged: dict[Key, int] = {}
        self.reasons: dict[Key, str] = {}
        """Objects that can't be decoded now, and why."""

    def stored(self, kind: Kind[R], key: Key, uid: str, revision: int, text: str | bytes) -> Stored[R] | None:
        """The object, or None if it can't be decoded: the reason is in the log."""
        try:
            value = decode(kind, text)
        except Refused as refused:
            self.note(key, revision, refused)
            return None
        self.forget(key)
        return Stored(key=key, uid=uid, revision=revision, value=value)

    def forget(self, key: Key) -> None:
        """The object is gone, or sound."""
        self._logged.pop(key, None)
        self.reasons.pop(key, None)

    def restart(self, kind: str) -> None:
        """All objects of a kind are about to be read."""
        for key in [key for key in self.reasons if key.kind == kind]:
            del self.reasons[key]

    def note(self, key: Key, revision: int, refused: Refused) -> None:
        """The object can't be decoded; the log says so, once for each revision."""
        self.reasons[key] = str(refused)
        if self._logged.get(key) != revision:
            self._logged[key] = revision
            _LOG.error("%s at revision %d can't be read and is left out: %s", key, revision, refused)
