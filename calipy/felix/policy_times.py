"""How long a policy takes from the store to the kernel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from calipy.felix.calc.change import Change
from calipy.felix.calc.world import Event, ResourceGone, ResourcePut
from calipy.felix.dataplane import Area
from calipy.felix.objects import Owner
from calipy.felix.report import policy_key
from calipy.felix.rules.compile import policy_owner
from calipy.model.policies import POLICY_KINDS
from calipy.resources.metadata import Key

_KINDS = frozenset(POLICY_KINDS.values())


class _Under(NamedTuple):
    """A policy's event on its way to the kernel."""

    key: Key
    revision: int
    since_s: float


class PolicyTimes:
    """Measures each event of a policy, those that are merged on their way each for itself. A policy that means nothing
    to this node has nothing to be committed and isn't counted; one that the kernel refuses counts when it is taken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is the one by which events come in."""
        self.observe: Callable[[float], object] = lambda seconds: None
        """Told the seconds of each."""
        self._clock = clock
        self._heard: list[_Under] = []
        self._calculated: list[tuple[Owner, float]] = []

    def heard(self, events: Iterable[Event], since_s: float) -> None:
        """These events of the store go to the calculation; it delivered them at `since_s`."""
        for event in events:
            if isinstance(event, ResourcePut | ResourceGone) and event.key.kind in _KINDS:
                self._heard.append(_Under(event.key, event.revision, since_s))

    def settled(self, area: Area, change: Change | None) -> None:
        """The rules' area holds what it can be brought to hold, with `change` in it."""
        if change is not None and self._heard:
            self._take(change)
        if not self._calculated or area.distrusted:
            return
        now, waiting = self._clock(), self._calculated
        self._calculated = []
        for owner, since_s in waiting:
            if owner in area.refused or not area.ledger.settled(owner):
                self._calculated.append((owner, since_s))
            else:
                self.observe(now - since_s)

    def _take(self, change: Change) -> None:
        owners = {policy_key(owner): owner for owner in map(policy_owner, change.policies)}
        still: list[_Under] = []
        for each in self._heard:
            if each.revision > change.revisions.get(each.key.kind, 0):
                still.append(each)
            elif each.key in owners:
                self._calculated.append((owners[each.key], each.since_s))
        self._heard = still
