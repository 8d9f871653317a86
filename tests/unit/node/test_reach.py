"""From where the kernel would send."""

from __future__ import annotations

import pytest

from calipy.node.reach import source_towards


async def test_the_kernel_tells_from_where_it_would_send() -> None:
    assert await source_towards("127.0.0.1", 4, 10) == "127.0.0.1"
    assert await source_towards("::1", 6, 10) == "::1"
    with pytest.raises(OSError, match="::1 is no IPv4 address"):
        await source_towards("::1", 4, 10)


async def test_a_name_is_looked_up_in_its_family() -> None:
    assert await source_towards("localhost", 4, 10) == "127.0.0.1"


@pytest.mark.parametrize("name", ["a..b", "x" * 300])
async def test_a_name_that_nobody_can_have(name: str) -> None:
    with pytest.raises(OSError, match="its address can't be looked up: ") as raised:
        await source_towards(name, 4, 10)
    assert "Traceback" not in str(raised.value)
