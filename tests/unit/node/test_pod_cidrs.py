"""Pools as a node with USE_POD_CIDR sees them."""

from __future__ import annotations

import pytest

from calipy.node.pod_cidrs import narrowed
from calipy.resources.ip_pools import KIND
from tests.unit.resources.objects import made

# a pool's range and block size | the Node's podCIDRs | the range that is left, or why there is none
CASES = [
    ("10.244.0.0/16", 26, ("10.244.7.0/24", "fd00:10:244:7::/64"), "10.244.7.0/24"),
    ("fd00:10:244::/56", 122, ("10.244.7.0/24", "fd00:10:244:7::/64"), "fd00:10:244:7::/64"),
    ("10.244.7.0/25", 26, ("10.244.7.0/24",), "10.244.7.0/25"),
    ("10.244.0.0/16", 26, ("10.244.7.0/26",), "10.244.7.0/26"),
    ("10.244.0.0/16", 26, ("10.244.7.0/27",), "no block of /26 is in both: 10.244.7.0/27"),
    ("10.1.0.0/16", 26, ("10.244.7.0/24",), "no block of /26 is in both: 10.244.7.0/24"),
    ("10.1.0.0/16", 26, ("fd00:10:244:7::/64",), "no block of /26 is in both: its Node has no podCIDR of IPv4 yet"),
    ("10.1.0.0/16", 26, (), "no block of /26 is in both: its Node has no podCIDR of IPv4 yet"),
]  # fmt: skip


@pytest.mark.parametrize(("cidr", "block_size", "pod_cidrs", "left"), CASES)
def test_the_table(cidr: str, block_size: int, pod_cidrs: tuple[str, ...], left: str) -> None:
    (pool,) = narrowed([made(KIND, {"cidr": cidr, "blockSize": block_size})], pod_cidrs)
    said = pool.hindrance.removeprefix("can't be drawn from: USE_POD_CIDR is true on this node, and ")
    assert (said or pool.spec.cidr) == left
