"""IPPool: what can't change, and what can't lie beside each other."""

from __future__ import annotations

import pytest

from calipy.datastore.lifecycles import accept_change
from calipy.resources.ip_pools import KIND, IPPool, IPPoolSpec, overlap_problems
from calipy.resources.metadata import ObjectMeta, Refused


def pool(cidr: str, *, name: str = "a", block_size: int = 0, disabled: bool = False) -> IPPool:
    spec = IPPoolSpec(cidr=cidr, block_size=block_size, disabled=disabled)
    return IPPool(metadata=ObjectMeta(name=name), spec=spec)


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        (pool("10.0.0.0/16"), pool("10.0.0.0/16", disabled=True), ""),
        (pool("10.0.0.0/16"), pool("10.0.0.0/16", block_size=26), ""),
        (pool("10.0.0.0/16"), pool("10.0.0.0/16", block_size=28), "spec.blockSize: 28: is 26 and can't change"),
        (pool("10.0.0.0/16"), pool("10.0.0.0/17"), "spec.cidr: '10.0.0.0/17': is 10.0.0.0/16 and can't change"),
        (pool("fd00::/64"), pool("fd00::/64", block_size=124), "spec.blockSize: 124: is 122 and can't change"),
    ],
)
def test_range_and_block_size_stay_whoever_writes(old: IPPool, new: IPPool, refused: str) -> None:
    if not refused:
        accept_change(KIND, old, new)
        return
    with pytest.raises(Refused) as error:
        accept_change(KIND, old, new)
    assert refused in str(error.value)


@pytest.mark.parametrize(
    ("others", "overlaps"),
    [
        ([], []),
        ([pool("10.1.0.0/16", name="b")], []),
        ([pool("10.0.128.0/17", name="b")], ["b"]),
        ([pool("10.0.0.0/8", name="b", disabled=True), pool("10.0.3.0/24", name="c")], ["b", "c"]),
        ([pool("10.0.0.0/16", name="a")], []),
        ([pool("fd00::/8", name="b"), pool("no CIDR", name="c")], []),
    ],
)
def test_a_pool_may_not_overlap_another(others: list[IPPool], overlaps: list[str]) -> None:
    found = [problem.reason.rpartition("/")[2] for problem in overlap_problems(pool("10.0.0.0/16"), others)]
    assert found == overlaps
