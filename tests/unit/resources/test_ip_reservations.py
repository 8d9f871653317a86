"""IPReservation: what is right and what is wrong."""

from __future__ import annotations

import pytest

from calipy.resources.ip_reservations import KIND
from tests.unit.resources.objects import made, said


@pytest.mark.parametrize(
    ("cidrs", "problems"),
    [
        ([], []),
        (["10.244.0.1", "10.244.0.0/28", "fd00::/120", "fd00::7"], []),
        (
            ["10.244.0.0/28", "gateway"],
            ["spec.reservedCIDRs[1]: 'gateway': is neither an address nor a CIDR; write 10.244.0.0/28"],
        ),
        (
            ["10.244.0.0-9"],
            ["spec.reservedCIDRs[0]: '10.244.0.0-9': is neither an address nor a CIDR; write 10.244.0.0/28"],
        ),
    ],
)
def test_reserved_ranges(cidrs: list[str], problems: list[str]) -> None:
    assert said(KIND, made(KIND, {"reservedCIDRs": cidrs})) == problems
