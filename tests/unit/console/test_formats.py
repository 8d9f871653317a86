"""Numbers of things."""

from __future__ import annotations

import pytest

from calipy.console.formats import counted


@pytest.mark.parametrize(("number", "words"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_one_thing_is_not_told_in_the_plural(number: int, words: str) -> None:
    assert counted(number, "node") == words
