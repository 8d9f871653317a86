"""How long to wait before asking a store again."""

from __future__ import annotations

from msgspec import Struct


class Backoff(Struct, frozen=True, gc=False):
    """Doubles from `first_s` up to `longest_s`."""

    first_s: float = 0.1
    longest_s: float = 30.0

    def delay_s(self, failures: int, jitter: float) -> float:
        """The wait after so many failures in a row (at least 1); `jitter` in [0, 1) picks from its upper half, so that
        the nodes of a cluster don't come back all at once."""
        whole_s = min(self.first_s * 2.0 ** min(failures - 1, 32), self.longest_s)
        return whole_s * (0.5 + jitter / 2)
