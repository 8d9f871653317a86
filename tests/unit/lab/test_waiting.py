"""Waiting for what has no event."""

from __future__ import annotations

import pytest

from calipy.console.failures import Failure
from calipy.lab.waiting import eventually


async def test_waiting_tells_the_last_reason():
    async def look():
        return "the wind is wrong"

    with pytest.raises(Failure, match=r"sailing: the wind is wrong \(after 0 s\)"):
        await eventually(look, "sailing", timeout_s=0)
