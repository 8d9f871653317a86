"""Waiting doubles, up to a limit, and never all at the same time."""

from __future__ import annotations

from calipy.datastore.backoffs import Backoff


def test_the_wait_doubles_up_to_the_limit() -> None:
    waits = [Backoff(first_s=1, longest_s=5).delay_s(failures, jitter=1.0) for failures in (1, 2, 3, 4, 5000)]
    assert waits == [1, 2, 4, 5, 5]


def test_jitter_picks_from_the_upper_half() -> None:
    assert Backoff(first_s=1).delay_s(1, jitter=0.0) == 0.5
    assert Backoff(first_s=1).delay_s(1, jitter=0.5) == 0.75
