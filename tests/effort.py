"""How much the tests try. CALIPY_EFFORT says it: `quick` for a save (`make quick`), `whole` for everything else, and
the default, `long` for a search that takes minutes.

A law is tried on a quarter of its examples by `quick`, on ten times as many by `long`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
LEVELS: Final = ("quick", "whole", "long")
EFFORT: Final = os.environ.get("CALIPY_EFFORT") or "whole"
if EFFORT not in LEVELS:
    raise ValueError(f"environment variable CALIPY_EFFORT {EFFORT!r}: there is no such effort; write {LEVELS}")
_FEWEST: Final = 10


def at_effort(*, quick: T, whole: T, long: T) -> T:
    """What a test is to use now."""
    return {"quick": quick, "whole": whole, "long": long}[EFFORT]


def examples(whole: int, *, unless: Sequence[HealthCheck] = ()) -> settings:
    """The settings of a law that is tried on `whole` examples, without a limit of time: this machine may be busy.
    `unless`: health checks that it need not pass."""
    count = at_effort(quick=max(_FEWEST, whole // 4), whole=whole, long=10 * whole)
    return settings(max_examples=count, deadline=None, suppress_health_check=tuple(unless))
