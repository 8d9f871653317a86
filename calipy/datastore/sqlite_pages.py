"""Listing from the embedded store, page by page, in one snapshot."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any, cast

from calipy.datastore import sqlite_schema as sql
from calipy.datastore.sqlite_files import DatabaseFile


async def pages(
    file: DatabaseFile, kind: str, *, namespace: str, labels: Mapping[str, str], page_size: int
) -> AsyncGenerator[tuple[int, tuple[sql.Row, ...]], None]:
    """The revision of the snapshot, and rows in order of namespace and name; at least one page. Empty `namespace` is
    all of them. A connection of its own holds the snapshot, so writes go on meanwhile. Raises Unavailable."""
    connection = await file.patiently(file.connect)
    try:
        connection.execute("BEGIN")
        revision = await file.patiently(lambda: cast(int, connection.execute(sql.NEWEST).fetchone()[0]))
        statement, parameters = _statement(kind, namespace, labels, page_size)
        while True:
            found = await file.patiently(partial(_fetch, connection, statement, parameters))
            rows = tuple(sql.Row(*row) for row in found)
            yield revision, rows
            if len(rows) < page_size:
                return
            parameters |= {"namespace": rows[-1].namespace, "name": rows[-1].name}
            await asyncio.sleep(0)
    finally:
        connection.close()


def _statement(kind: str, namespace: str, labels: Mapping[str, str], page_size: int) -> tuple[str, dict[str, object]]:
    filters, wanted = sql.label_filter(labels)
    if namespace:
        filters += "AND namespace = :only"
    parameters: dict[str, object] = {"kind": kind, "namespace": "", "name": "", "only": namespace, "limit": page_size}
    return sql.LIST.format(filters=filters), parameters | wanted


def _fetch(connection: sqlite3.Connection, statement: str, parameters: dict[str, object]) -> list[tuple[Any, ...]]:
    return connection.execute(statement, parameters).fetchall()
