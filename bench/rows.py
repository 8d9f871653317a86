"""A measurement, and how samples become one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from msgspec import Struct


class Row(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One line of the table. `ratio` is ours over the peer's, or over the aim where there is no peer."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    aim: str = ""
    """What we want to stay below, for the reader."""


def row(
    name: str,
    unit: str,
    ours: float,
    peer: float | None = None,
    peer_name: str = "",
    aim: str = "",
    limit: float | None = None,
) -> Row:
    """A row with its ratio. `aim` is one of the ratio; `limit`, where there is no peer, is one of the figure itself."""
    base = peer or limit
    ratio = ours / base if base else None
    if limit is not None:
        aim = f"<= {limit:g}"
    return Row(name=name, unit=unit, ours=ours, peer=peer, peer_name=peer_name, ratio=ratio, aim=aim)


def median(samples: Sequence[float]) -> float:
    """The middle sample."""
    return statistics.median(samples)
