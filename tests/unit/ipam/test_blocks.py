"""Blocks as values: Calico's worked example byte by byte, and a model that no sequence of steps may leave."""

from __future__ import annotations

import datetime

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw, structs

from calipy.datastore.patches import document
from calipy.ipam import blocks
from calipy.ipam.blocks import SYSTEM_HANDLE, address_at, allocate, go_time, holdings, new_block, release, rfc3339
from calipy.ipam.claims import moved, new_affinity
from calipy.ipam.errors import AlreadyAssigned, Mismatch
from calipy.ipam.handles import new_handle
from calipy.resources.ipam_blocks import IPAMBlock, problems
from tests.effort import examples

T0 = 1_787_403_911.123
"""2026-08-22 13:05:11.123 UTC"""


def text(block: IPAMBlock) -> list[tuple[str, str | None]]:
    """Address and handle of what is held."""
    return [(holding.address, holding.handle) for holding in holdings(block)]


# --- bytes ---


def test_calicos_worked_example_comes_out_as_calico_writes_it() -> None:
    """One live pod at ordinal 5 of a /26; ordinals 0 to 4 were allocated earlier and freed in order."""
    block = new_block("10.244.1.0/26", "host:n1", T0)
    for n in range(5):
        block, _ = allocate(block, 1, f"k8s-pod-network.old{n}", {"node": "n1"})
        block = blocks.numbered(block)
    for n in range(5):
        block = blocks.numbered(release(block, [n], T0, 0))
    attributes = {"namespace": "default", "node": "n1", "pod": "web", "timestamp": go_time(T0)}
    before = block.spec.sequence_number
    block, given = allocate(block, 1, "k8s-pod-network.4f1c", attributes)
    block = blocks.numbered(block)
    assert given == ("10.244.1.5",)
    assert document(block) == {
        "kind": "IPAMBlock",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "10-244-1-0-26"},
        "spec": {
            "cidr": "10.244.1.0/26",
            "affinity": "host:n1",
            "affinityClaimTime": "2026-08-22T13:05:11Z",
            "allocations": [None] * 5 + [0] + [None] * 58,
            "unallocated": [*range(6, 64), 0, 1, 2, 3, 4],
            "attributes": [
                {
                    "handle_id": "k8s-pod-network.4f1c",
                    "secondary": {
                        "namespace": "default",
                        "node": "n1",
                        "pod": "web",
                        "timestamp": "2026-08-22 13:05:11.123 +0000 UTC",
                    },
                }
            ],
            "sequenceNumber": before + 1,
            "sequenceNumberForAllocation": {"5": before},
            "strictAffinity": False,
        },
    }


def test_handles_and_claims_come_out_as_calico_writes_them() -> None:
    assert document(new_handle("k8s-pod-network.4F1C", {"10.244.1.0/26": 1})) == {
        "kind": "IPAMHandle",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "k8s-pod-network.4f1c"},
        "spec": {"handleID": "k8s-pod-network.4F1C", "block": {"10.244.1.0/26": 1}, "deleted": False},
    }
    assert document(moved(new_affinity("n1", "10.244.1.0/26"), "confirmed")) == {
        "kind": "BlockAffinity",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": "n1-10-244-1-0-26",
            "labels": {
                # base32, without padding, of SHA3-256("n1"), by `openssl dgst -sha3-256 -binary | base32`
                "projectcalico.org/hostname-hash": "DM7EHBDU4L3ELKRER4A46T6QMKAGARQI4CVWBO26S4I2IDAAW6CA",
                "projectcalico.org/affinity-type": "host",
                "projectcalico.org/ip-version": "4",
            },
        },
        "spec": {"cidr": "10.244.1.0/26", "node": "n1", "type": "host", "state": "confirmed", "deleted": False},
    }


def test_a_released_address_comes_out_as_calico_writes_it() -> None:
    block, _ = allocate(new_block("10.244.1.0/30", None, T0), 2, "k8s.a", {})
    block = release(blocks.numbered(block), [0], T0, 30)
    assert document(block)["spec"] == {
        "cidr": "10.244.1.0/30",
        "allocations": [1, 0, None, None],
        "unallocated": [2, 3],
        "attributes": [{"handle_id": "k8s.a"}, {"releasedAt": "2026-08-22T13:05:12Z"}],
        "sequenceNumber": block.spec.sequence_number,
        "sequenceNumberForAllocation": {"0": block.spec.sequence_number, "1": block.spec.sequence_number - 1},
        "strictAffinity": False,
    }


@pytest.mark.parametrize(
    ("seconds", "go", "kubernetes"),
    [
        (T0, "2026-08-22 13:05:11.123 +0000 UTC", "2026-08-22T13:05:11Z"),
        (1_787_403_911.0, "2026-08-22 13:05:11 +0000 UTC", "2026-08-22T13:05:11Z"),
        (1_787_403_911.000001, "2026-08-22 13:05:11.000001 +0000 UTC", "2026-08-22T13:05:11Z"),
        (0.5, "1970-01-01 00:00:00.5 +0000 UTC", "1970-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_as_go_and_kubernetes_write_them(seconds: float, go: str, kubernetes: str) -> None:
    assert go_time(seconds) == go
    assert rfc3339(seconds) == kubernetes
    assert datetime.datetime.fromisoformat(kubernetes).timestamp() == int(seconds)


# --- attributes ---


def test_equal_attributes_are_one_entry() -> None:
    block, _ = allocate(new_block("10.0.0.0/29", None, T0), 2, "k8s.a", {"pod": "a"})
    block, _ = allocate(block, 1, "k8s.a", {"pod": "a"})
    block, _ = allocate(block, 1, "k8s.a", {"pod": "b"})
    block, _ = allocate(block, 1, "k8s.b", {"pod": "a"})
    assert block.spec.allocations == (0, 0, 0, 1, 2, None, None, None)


def test_an_entry_with_a_field_that_we_do_not_know_is_not_ours_to_share() -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 1, "k8s.a", {"pod": "a"})
    foreign = Raw(msgspec.json.encode({"handle_id": "k8s.a", "secondary": {"pod": "a"}, "new": 1}))
    block = structs.replace(block, spec=structs.replace(block.spec, attributes=(foreign,)))
    block, _ = allocate(block, 1, "k8s.a", {"pod": "a"})
    assert block.spec.allocations == (0, 1, None, None)
    assert bytes(block.spec.attributes[0]) == bytes(foreign)


def test_what_an_old_migration_left_behind_a_handle_does_not_count() -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 1, "k8s.a\reth0", {})
    assert text(block) == [("10.0.0.0", "k8s.a")]
    assert [holding.address for holding in holdings(block, "k8s.a")] == ["10.0.0.0"]


def test_what_windows_sets_aside_does_not_make_a_block_used() -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 3, SYSTEM_HANDLE, {"note": "windows host rsvd"})
    assert blocks.is_empty(block)
    block, _ = allocate(block, 1, "k8s.a", {})
    assert not blocks.is_empty(block)


# --- cooldown ---


@pytest.mark.parametrize(
    ("cooldown", "passed", "is_free"),
    [(0, 0.0, True), (30, 0.0, False), (30, 29.99, False), (30, 30.9, True), (1, 0.99, False), (1, 1.9, True)],
)
def test_an_address_rests_at_least_as_long_as_its_cooldown(cooldown: int, passed: float, is_free: bool) -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 1, "k8s.a", {})
    block = release(block, [0], T0, cooldown)
    block = blocks.normalised(block, T0 + passed, cooldown)
    assert (0 in block.spec.unallocated) == is_free
    assert blocks.is_empty(block) == is_free
    assert text(block) == []


def test_addresses_are_freed_in_the_order_of_their_release() -> None:
    block, _ = allocate(new_block("10.0.0.0/29", None, T0), 6, "k8s.a", {})
    for n, ordinal in enumerate((4, 1, 3)):
        block = blocks.numbered(release(block, [ordinal], T0 + n, 60))
    assert blocks.normalised(block, T0 + 100, 60).spec.unallocated == (6, 7, 4, 1, 3)


def test_a_cooldown_that_was_switched_off_frees_at_once() -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 1, "k8s.a", {})
    assert blocks.normalised(release(block, [0], T0, 600), T0, 0).spec.unallocated == (1, 2, 3, 0)


# --- refusals, and what changes nothing ---


def test_nothing_to_do_leaves_the_very_block() -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 4, "k8s.a", {})
    assert blocks.normalised(block, T0, 0) is block
    assert allocate(block, 1, "k8s.b", {})[0] is block
    assert release(block, [], T0, 0) is block
    empty = new_block("10.0.0.0/30", None, T0)
    assert release(empty, [2], T0, 0) is empty


def test_an_address_is_released_only_under_its_handle_and_number() -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 1, "k8s.a", {})
    number = block.spec.sequence_number
    for handle, sequence in (("k8s.b", None), ("k8s.a", number + 1)):
        with pytest.raises(Mismatch):
            blocks.release_address(block, "10.0.0.0", T0, 0, handle, sequence)
    assert text(blocks.release_address(block, "10.0.0.0", T0, 0, "k8s.a", number)) == []


def test_a_certain_address_is_given_once() -> None:
    block = blocks.allocate_address(new_block("fd00::/122", None, T0), "fd00::9", "k8s.a", {})
    assert text(block) == [("fd00::9", "k8s.a")]
    with pytest.raises(AlreadyAssigned):
        blocks.allocate_address(block, "fd00::9", "k8s.b", {})


def test_a_broken_free_list_gives_no_address_out_twice() -> None:
    block, _ = allocate(new_block("10.0.0.0/30", None, T0), 2, "k8s.a", {})
    broken = structs.replace(block, spec=structs.replace(block.spec, unallocated=(0, 9, -1, 2, 3)))
    assert allocate(broken, 4, "k8s.b", {})[1] == ("10.0.0.2", "10.0.0.3")


# --- any sequence of steps ---

SIZE = 8
ADDRESSES = st.integers(0, SIZE - 1)
HANDLES = st.sampled_from(["k8s.a", "k8s.b", "k8s.c"])


class Model(RuleBasedStateMachine):
    """A block beside three lists: who holds what, what cools down since when, what is free in which order."""

    @initialize(cooldown=st.sampled_from([0, 10]))
    def start(self, cooldown: int) -> None:
        self.now = T0
        self.cooldown = cooldown
        self.block = new_block("10.0.0.0/29", "host:n1", T0)
        self.free = list(range(SIZE))
        self.held: dict[int, str] = {}
        self.cooling: list[tuple[int, float]] = []
        self.numbers = {self.block.spec.sequence_number}

    def wrote(self, block: IPAMBlock) -> None:
        if block is not self.block:
            self.block = blocks.numbered(block)
            assert self.block.spec.sequence_number == max(self.numbers) + 1
            self.numbers.add(self.block.spec.sequence_number)

    @rule(handle=HANDLES, count=st.integers(1, 3), reserved=st.sets(ADDRESSES, max_size=2))
    def give(self, handle: str, count: int, reserved: set[int]) -> None:
        is_reserved = {address_at(self.block, ordinal) for ordinal in reserved}.__contains__
        block, given = allocate(self.block, count, handle, {"pod": handle}, is_reserved)
        expected = [ordinal for ordinal in self.free if ordinal not in reserved][:count]
        assert list(given) == [address_at(self.block, ordinal) for ordinal in expected]
        self.wrote(block)
        self.free = [ordinal for ordinal in self.free if ordinal not in expected]
        self.held |= dict.fromkeys(expected, handle)

    @rule(handle=HANDLES, ordinal=ADDRESSES)
    def give_one(self, handle: str, ordinal: int) -> None:
        address = address_at(self.block, ordinal)
        if ordinal not in self.free:
            with pytest.raises(AlreadyAssigned):
                blocks.allocate_address(self.block, address, handle, {})
            return
        self.wrote(blocks.allocate_address(self.block, address, handle, {}))
        self.free.remove(ordinal)
        self.held[ordinal] = handle

    @rule(handle=HANDLES)
    def take_back(self, handle: str) -> None:
        ordinals = [holding.ordinal for holding in holdings(self.block, handle)]
        assert ordinals == sorted(o for o, holder in self.held.items() if holder == handle)
        self._release(ordinals)

    @rule(ordinals=st.lists(ADDRESSES, unique=True, max_size=4))
    def take_back_these(self, ordinals: list[int]) -> None:
        self._release(ordinals)

    def _release(self, ordinals: list[int]) -> None:
        held = [ordinal for ordinal in ordinals if ordinal in self.held]
        self.wrote(release(self.block, ordinals, self.now, self.cooldown))
        if held:
            self.cooling += [(ordinal, self.now) for ordinal in sorted(held)]
            self._free_cooled()
        for ordinal in held:
            del self.held[ordinal]

    @rule(seconds=st.sampled_from([0.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.cooling)
    @rule()
    def normalise(self) -> None:
        self.wrote(blocks.normalised(self.block, self.now, self.cooldown))
        self._free_cooled()

    def _free_cooled(self) -> None:
        done = [o for o, since in self.cooling if not self.cooldown or self.now - since >= self.cooldown + 1]
        self.free += done
        self.cooling = [entry for entry in self.cooling if entry[0] not in done]

    @invariant()
    def nothing_is_lost_and_nothing_is_there_twice(self) -> None:
        spec = self.block.spec
        assert list(problems(self.block)) == []
        assert spec.unallocated == tuple(self.free)
        assert {holding.ordinal: holding.handle for holding in holdings(self.block)} == self.held
        taken = [ordinal for ordinal, index in enumerate(spec.allocations) if index is not None]
        assert sorted([*taken, *spec.unallocated]) == list(range(SIZE))
        assert sorted(map(int, spec.sequence_number_for_allocation)) == taken
        assert set(spec.allocations) - {None} == set(range(len(spec.attributes)))


TestModel = Model.TestCase
TestModel.settings = settings(examples(25, unless=[HealthCheck.too_slow]), stateful_step_count=30)
