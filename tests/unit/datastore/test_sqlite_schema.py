"""Labels in one column are found whole, and only whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from calipy.datastore.sqlite_schema import NEWEST, WrongDatabase, label_column, label_filter, prepare


@pytest.mark.parametrize(
    ("labels", "wanted", "found"),
    [
        ({"a": "b"}, {"a": "b"}, True),
        ({"a": "b", "c": "d"}, {"c": "d", "a": "b"}, True),
        ({"a": "b"}, {"a": "b", "c": "d"}, False),
        ({"a": "bb"}, {"a": "b"}, False),
        ({"aa": "b"}, {"a": "b"}, False),
        ({"a": ""}, {"a": ""}, True),
        ({}, {"a": ""}, False),
        ({}, {}, True),
    ],
)
def test_a_filter_finds_objects_that_have_all_labels(
    labels: dict[str, str], wanted: dict[str, str], found: bool
) -> None:
    filters, parameters = label_filter(wanted)
    with closing(sqlite3.connect(":memory:")) as connection:
        statement = f"SELECT 1 FROM (SELECT :labels AS labels) WHERE true {filters}"
        rows = connection.execute(statement, {"labels": label_column(labels), **parameters}).fetchall()
    assert bool(rows) is found


def test_a_database_is_prepared_once_and_begins_at_revision_one() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        prepare(connection)
        prepare(connection)
        assert connection.execute(NEWEST).fetchone() == (1,)


def test_a_foreign_database_is_refused() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        with pytest.raises(WrongDatabase, match="another program"):
            prepare(connection)
