"""Which sets the rules in force need: each is there as long as somebody needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping

from calipy.felix.calc.change import SetKey
from calipy.felix.calc.policies import SetSpec


class SetUses:
    """Sets by their users, which are policies and profiles."""

    def __init__(self) -> None:
        self._of: dict[Hashable, frozenset[SetKey]] = {}
        self._users: Counter[SetKey] = Counter()
        self._specs: dict[SetKey, SetSpec] = {}
        self._told: set[SetKey] = set()
        self._touched: set[SetKey] = set()

    def put(self, user: Hashable, sets: Mapping[SetKey, SetSpec]) -> None:
        """Says all that a user needs from now on."""
        before, after = self._of.pop(user, frozenset()), frozenset(sets)
        if after:
            self._of[user] = after
        for key in after - before:
            self._users[key] += 1
            self._specs[key] = sets[key]
        for key in before - after:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
        self._touched |= after ^ before

    def moved(self) -> tuple[list[SetKey], list[tuple[SetKey, SetSpec]]]:
        """The sets that nobody needs any more, and those that somebody needs since this was last asked."""
        gone = [key for key in self._touched if key in self._told and key not in self._users]
        come = [(key, self._specs[key]) for key in self._touched if key in self._users and key not in self._told]
        self._told.difference_update(gone)
        self._told.update(key for key, _ in come)
        for key in self._touched:
            if key not in self._users:
                del self._specs[key]
        self._touched = set()
        return gone, come
