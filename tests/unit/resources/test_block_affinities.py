"""Names and labels of claims and blocks, as Calico writes them."""

from __future__ import annotations

import pytest

from calipy.resources import block_affinities, ipam_blocks
from calipy.resources.block_affinities import KIND
from tests.unit.resources.objects import made, said


@pytest.mark.parametrize(
    ("cidr", "name"),
    [("10.244.1.0/26", "10-244-1-0-26"), ("fd00:10:244::/122", "fd00-10-244---122"), ("fd00::40/122", "fd00--40-122")],
)
def test_a_blocks_name(cidr: str, name: str) -> None:
    assert ipam_blocks.name_of(cidr) == name
    assert block_affinities.name_of("n1", cidr) == f"n1-{name}"


def test_a_long_nodes_name_is_cut_and_hashed() -> None:
    assert len(block_affinities.name_of("n" * 238, "10.244.1.0/26")) == 252
    name = block_affinities.name_of("n" * 239, "10.244.1.0/26")
    assert (len(name), name[-26:]) == (252, "-10-244-1-0-26-" + name[-11:])
    assert name != block_affinities.name_of("n" * 240, "10.244.1.0/26")


def test_labels_by_which_a_server_lists_a_nodes_claims() -> None:
    labels = block_affinities.labels_of("n1", "fd00::/122")
    assert labels["projectcalico.org/ip-version"] == "6"
    assert labels["projectcalico.org/affinity-type"] == "host"
    assert len(labels["projectcalico.org/hostname-hash"]) == 52


@pytest.mark.parametrize(
    ("spec", "confirmed"),
    [
        ({"state": "confirmed"}, True), ({"state": ""}, True), ({"state": "pending"}, False),
        ({"state": "pendingDeletion"}, False), ({"state": "confirmed", "deleted": True}, False),
    ],
)  # fmt: skip
def test_which_claims_count(spec: dict[str, object], confirmed: bool) -> None:
    assert made(KIND, {"cidr": "10.0.0.0/26", "node": "n1", **spec}).confirmed is confirmed


def test_a_claim_of_nobody_is_wrong() -> None:
    assert said(KIND, made(KIND, {"cidr": "10.0.0.0/26", "node": ""})) == ["spec.node: '': is empty; delete the object"]
