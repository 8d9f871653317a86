"""The tables of the embedded store, and every SQL statement on them.

`objects` holds each object's JSON as text, with what is looked for beside it. Its primary key is the revision: a write
moves the row to the end, so the table is its own log, which holds each object once, at its newest revision. Deleted
objects leave a row in `tombstones`. Together they answer "what happened after revision r" for every r from `forgotten`
on, the revision of the newest tombstone that was dropped. The newest revision of all is the newest there is in either:
a counter would cost one more page a commit (a quarter of its time).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

APPLICATION_ID = 0x43414C50
"""`CALP`, in the database's header (sqlite.org/fileformat2.html, 1.3.14)."""
VERSION = 1
"""The header's user_version."""

_TABLES = """
CREATE TABLE objects (
    revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    uid TEXT NOT NULL, labels TEXT NOT NULL, text TEXT NOT NULL);
CREATE UNIQUE INDEX objects_by_key ON objects (kind, namespace, name);
CREATE TABLE tombstones (
    revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    uid TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE memory (forgotten INTEGER NOT NULL);
INSERT INTO memory VALUES (0);
"""

NEWEST = (
    "SELECT max(1, ifnull((SELECT max(revision) FROM objects), 1), ifnull((SELECT max(revision) FROM tombstones), 1))"
)
"""The store's revision; 1 while it is empty."""

GET = "SELECT revision, uid, text FROM objects WHERE kind = ? AND namespace = ? AND name = ?"
LIST = """
SELECT kind, namespace, name, uid, revision, text, 0 FROM objects
WHERE kind = :kind AND (namespace, name) > (:namespace, :name) {filters} ORDER BY namespace, name LIMIT :limit
"""
INSERT = "INSERT INTO objects (revision, kind, namespace, name, uid, labels, text) VALUES (?, ?, ?, ?, ?, ?, ?)"
UPDATE = "UPDATE objects SET revision = ?, labels = ?, text = ? WHERE revision = ?"
DELETE = "DELETE FROM objects WHERE revision = ?"
BURY = "INSERT INTO tombstones (revision, kind, namespace, name, uid, text) VALUES (?, ?, ?, ?, ?, ?)"

CHANGES = """
SELECT kind, namespace, name, uid, revision, text, 0 FROM objects
WHERE revision > :since AND +kind IN (SELECT value FROM json_each(:kinds))
UNION ALL
SELECT kind, namespace, name, uid, revision, text, 1 FROM tombstones
WHERE revision > :since AND +kind IN (SELECT value FROM json_each(:kinds))
ORDER BY 5 LIMIT :limit
"""
"""The + keeps SQLite from going by the key: it must go by revision, and stop at the limit."""

FORGOTTEN = "SELECT forgotten FROM memory"
FORGET = "DELETE FROM tombstones WHERE revision <= ?"
NOTE_FORGOTTEN = "UPDATE memory SET forgotten = ?"
NEWEST_TO_DROP = "SELECT revision FROM tombstones ORDER BY revision DESC LIMIT 1 OFFSET ?"


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One row of LIST or CHANGES: an object as it is stored, or was when it was deleted."""

    kind: str
    namespace: str
    name: str
    uid: str
    revision: int
    text: str
    deleted: int
    """1 for a tombstone, else 0."""


def prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty database; raises WrongDatabase on one that isn't ours, or is newer than we."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    check(connection)


class WrongDatabase(Exception):
    """A sound SQLite database that we can't use; the message says why."""


def check(connection: sqlite3.Connection) -> None:
    """Raises WrongDatabase on one that isn't ours, an empty one included, or is newer than we."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise WrongDatabase("is a database of another program; name another file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise WrongDatabase(f"has format {version}, this CalIPy knows {VERSION}; use the CalIPy that wrote it")


def label_column(labels: Mapping[str, str]) -> str:
    """Labels as one searchable text: a line `key=value` for each, newlines on both sides."""
    return "\n" + "".join(f"{key}={value}\n" for key, value in labels.items()) if labels else ""


def label_filter(labels: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """SQL for "has all these labels" in LIST's {filters}, and its parameters."""
    parameters = {f"label{n}": f"\n{key}={value}\n" for n, (key, value) in enumerate(labels.items())}
    return "".join(f"AND instr(labels, :{name}) " for name in parameters), parameters
