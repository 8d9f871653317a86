"""What an object holds on to."""

from __future__ import annotations


def held(thing: object) -> int:
    """How many entries there are in its collections, at any depth."""
    if isinstance(thing, dict):
        return len(thing) + sum(map(held, thing.values()))
    if isinstance(thing, list | tuple | set | frozenset):
        return len(thing)
    return sum(map(held, vars(thing).values())) if hasattr(thing, "__dict__") else 0
