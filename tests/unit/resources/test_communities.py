"""What is a BGP community, and what only looks like one."""

from __future__ import annotations

import pytest

from calipy.resources.communities import is_community


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("0:0", True),
        ("64512:100", True),
        ("65535:65535", True),
        ("65536:1", False),
        ("1:65536", False),
        ("99999:1", False),
        ("0:0:0", True),
        ("4294967295:4294967295:4294967295", True),
        ("4294967296:1:1", False),
        ("1:1:9999999999", False),
        ("65536:1:1", True),
        ("01:1", False),
        ("1", False),
        ("1:1:1:1", False),
        ("1:", False),
        ("no-export", False),
        ("1:1\n", False),
        ("١:1", False),
    ],
)
def test_communities(text: str, right: bool) -> None:
    assert is_community(text) is right


@pytest.mark.parametrize("digits", range(1, 11))
def test_every_length_of_number_is_known(digits: int) -> None:
    lowest, highest = 10 ** (digits - 1), min(10**digits - 1, 4294967295)
    assert is_community(f"{lowest}:{highest}:0")
    assert is_community(f"{lowest}:0") is (lowest <= 65535)
