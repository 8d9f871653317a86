"""What a mirror holds of each kind, and what its consumer hasn't taken yet. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from calipy.datastore.stores import Event, Stored
from calipy.resources.metadata import Key

Objects = dict[Key, Stored[Any]]


class Batch(Struct, frozen=True, gc=False, kw_only=True):
    """What has happened since the last batch."""

    events: tuple[Event[Any], ...]
    """Puts and deletions, at most one of each object, in order of revision."""
    revisions: Mapping[str, int]
    """Kind's name -> the revision up to which this batch and those before tell all."""
    in_sync: bool
    """True from the first complete listing of all kinds on."""
    since_s: float = 0.0
    """When the store delivered the first of it, by the mirror's clock."""


class Replica:
    """The newest known object of each key, and the events not yet taken: the newest of each key, so that what waits
    is bounded by the objects there are and those that the consumer knows of."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._objects: dict[str, Objects] = {kind: {} for kind in kinds}
        self._waiting: dict[Key, Event[Any]] = {}
        self._unknown: set[Key] = set()
        """Keys in `_waiting` that the consumer has never been told of."""
        self._revisions: dict[str, int] = {}

    def objects(self, kind: str) -> Mapping[Key, Stored[Any]]:
        """The newest known objects; a view, not a copy."""
        return MappingProxyType(self._objects[kind])

    def revision(self, kind: str) -> int | None:
        """Up to where all is known, None before the first listing."""
        return self._revisions.get(kind)

    @property
    def in_sync(self) -> bool:
        """True once every kind has been listed."""
        return len(self._revisions) == len(self._objects)

    def advance(self, kind: str, revision: int) -> None:
        """All up to `revision` is known."""
        self._revisions[kind] = max(revision, self._revisions.get(kind, 0))

    def apply(self, kind: str, event: Event[Any]) -> None:
        """One event of a watch. What was known already is passed over."""
        if event.object is not None:
            if event.type == "put":
                self._put(kind, event.object)
            else:
                self._delete(kind, event.object.key, event.revision)
        self.advance(kind, event.revision)

    def vanished(self, kind: str, listed: Objects) -> tuple[Key, ...]:
        """Known objects that a complete listing no longer has."""
        return tuple(key for key in self._objects[kind] if key not in listed)

    def replace(self, kind: str, listed: Objects, gone: Iterable[Key], revision: int) -> None:
        """A complete listing: what differs from what is known becomes puts and deletions. Unlike `advance`, this may
        lead back: a store that was restored from a backup counts from there."""
        for key in gone:
            self._delete(kind, key, revision)
        for stored in listed.values():
            self._put(kind, stored, relisted=True)
        self._revisions[kind] = revision

    def take(self, since_s: float = 0.0) -> Batch:
        """All that waits, as one batch; the first of it was delivered at `since_s`."""
        events = tuple(sorted(self._waiting.values(), key=lambda event: event.revision))
        self._waiting.clear()
        self._unknown.clear()
        revisions = MappingProxyType(dict(self._revisions))
        return Batch(events=events, revisions=revisions, in_sync=self.in_sync, since_s=since_s)

    def _put(self, kind: str, stored: Stored[Any], *, relisted: bool = False) -> None:
        objects, key = self._objects[kind], stored.key
        known = objects.get(key)
        if known and known.uid == stored.uid:
            stale = known.revision == stored.revision if relisted else known.revision >= stored.revision
            if stale:
                return
        if known is None and key not in self._waiting:
            self._unknown.add(key)
        objects[key] = stored
        self._wait(key, Event(type="put", revision=stored.revision, object=stored))

    def _delete(self, kind: str, key: Key, revision: int) -> None:
        last = self._objects[kind].pop(key, None)
        if last is None:
            return
        if key in self._unknown:  # the consumer need never hear of it
            self._unknown.discard(key)
            self._waiting.pop(key, None)
            return
        self._wait(key, Event(type="deleted", revision=revision, object=last))

    def _wait(self, key: Key, event: Event[Any]) -> None:
        self._waiting.pop(key, None)
        self._waiting[key] = event
