"""Where a long calculation may pause: after so many units of work, each some microseconds."""

from __future__ import annotations

SLICE = 50
"""Units between two pauses: half a millisecond or so."""


class Pace:
    """Counts units of work."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = SLICE

    def due(self, units: int = 1) -> bool:
        """True if it is time to pause, these units done."""
        self._left -= units
        if self._left > 0:
            return False
        self._left = SLICE
        return True
