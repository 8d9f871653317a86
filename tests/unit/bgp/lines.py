"""Lines that ExaBGP wrote, and what may become of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ACCOUNT = "show neighbor json"
JUNK = (None, "", "nonsense", "\x00", "10.0.0.0/99", -1, 10**30, 1.5, True, [], [[]], {}, {"": ""})


def _recorded() -> dict[str, bytes]:
    """Name -> line."""
    _, *rest = Path(__file__).with_name("exabgp_lines.txt").read_text().splitlines()
    return {name.removeprefix("# "): line.encode() for name, line in zip(rest[::2], rest[1::2], strict=True)}


LINES = _recorded()
EVENTS = {name: line for name, line in LINES.items() if line.startswith(b"{")}


def variants(line: bytes) -> Iterator[bytes]:
    """The line with each field, at any depth, left out, renamed, or with something else in its place."""
    whole = json.loads(line)
    for path in _paths(whole):
        yield _changed(whole, path, lambda parent, key: parent.pop(key))
        for junk in JUNK:
            yield _changed(whole, path, lambda parent, key, junk=junk: parent.__setitem__(key, junk))
        if isinstance(path[-1], str):
            yield _changed(whole, path, lambda parent, key: parent.__setitem__("nonsense", parent.pop(key)))


def _changed(whole: Any, path: tuple[str | int, ...], change: Any) -> bytes:
    parent = made = copy.deepcopy(whole)
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return json.dumps(made).encode()


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))
