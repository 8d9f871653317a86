"""The three writes to the embedded store, each inside a transaction that its caller holds.

Each does the API server's duty: names, uniqueness, preconditions, metadata, generation, finalizers.
"""

from __future__ import annotations

import sqlite3
from typing import cast

import msgspec

from calipy.datastore import lifecycles
from calipy.datastore import sqlite_schema as sql
from calipy.datastore.lifecycles import Document
from calipy.datastore.patches import document
from calipy.datastore.stores import Conflict, Exists, NotFound, Stored
from calipy.resources.metadata import Kind, R, decode


class Writes:
    """Writes through one connection. `history`: how many deletions are remembered for watches."""

    def __init__(self, connection: sqlite3.Connection, *, history: int) -> None:
        self._connection = connection
        self._history = history
        self._deletions_until_sweep = 0
        self.newest = 0
        """The revision that the transaction at work has made, or the last one; whoever begins one sets it to 0."""

    def create(self, kind: Kind[R], value: R, *, uid: str, at: str) -> Stored[R]:
        """Raises Exists."""
        key = kind.key(value)
        revision = self._next_revision()
        text = _text(lifecycles.born(document(value), uid=uid, at=at), revision)
        stored = Stored(key=key, uid=uid, revision=revision, value=decode(kind, text))
        labels = sql.label_column(stored.value.metadata.labels)
        try:
            row = (revision, key.kind, key.namespace, key.name, uid, labels, text)
            self._connection.execute(sql.INSERT, row)
        except sqlite3.IntegrityError as error:
            raise Exists(f"{key} exists already; read it and update it") from error
        return stored

    def update(self, kind: Kind[R], old: Stored[R], patch: Document) -> Stored[R]:
        """Raises Conflict, NotFound; Refused when the patch can't be, or leaves what can't be decoded."""
        before = self._unchanged(old)
        after = lifecycles.changed(str(old.key), before, patch)
        if after == before:
            return old
        revision = self._next_revision()
        text = _text(after, revision)
        stored = Stored(key=old.key, uid=old.uid, revision=revision, value=decode(kind, text))
        if lifecycles.gone(after):
            self._bury(old, revision, text)
        else:
            self._replace(old, revision, stored.value.metadata.labels, text)
        return stored

    def delete(self, old: Stored[R], *, at: str) -> None:
        """Raises Conflict, NotFound. An object with finalizers is only marked."""
        before = self._unchanged(old)
        if not lifecycles.held(before):
            revision = self._next_revision()
            self._bury(old, revision, _text(before, revision))
            return
        after = lifecycles.dying(before, at=at)
        if after != before:
            revision = self._next_revision()
            self._replace(old, revision, old.value.metadata.labels, _text(after, revision))

    def _unchanged(self, old: Stored[R]) -> Document:
        key = old.key
        found = self._connection.execute(sql.GET, (key.kind, key.namespace, key.name)).fetchone()
        if found is None:
            raise NotFound(f"{key} does not exist (any more)")
        revision, uid, text = found
        if uid != old.uid:
            raise Conflict(f"{key} has been deleted and made anew (uid {uid}, read was {old.uid}); read it again")
        if revision != old.revision:
            raise Conflict(f"{key} has changed: it is at revision {revision}, read was {old.revision}; read it again")
        return cast(Document, msgspec.json.decode(text))

    def _replace(self, old: Stored[R], revision: int, labels: dict[str, str], text: str) -> None:
        self._connection.execute(sql.UPDATE, (revision, sql.label_column(labels), text, old.revision))

    def _bury(self, old: Stored[R], revision: int, text: str) -> None:
        key = old.key
        self._connection.execute(sql.DELETE, (old.revision,))
        self._connection.execute(sql.BURY, (revision, key.kind, key.namespace, key.name, old.uid, text))
        self._deletions_until_sweep -= 1
        if self._deletions_until_sweep < 0:
            self._deletions_until_sweep = self._history // 16
            self._sweep()

    def _sweep(self) -> None:
        newest_to_drop = self._connection.execute(sql.NEWEST_TO_DROP, (self._history,)).fetchone()
        if newest_to_drop:
            self._connection.execute(sql.FORGET, newest_to_drop)
            self._connection.execute(sql.NOTE_FORGOTTEN, newest_to_drop)

    def _next_revision(self) -> int:
        self.newest = cast(int, self._connection.execute(sql.NEWEST).fetchone()[0]) + 1
        return self.newest


def _text(value: Document, revision: int) -> str:
    return msgspec.json.encode(lifecycles.at_revision(value, revision)).decode()
