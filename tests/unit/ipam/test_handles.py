"""Handles: counts by block, up before the block is written and down after, whoever else writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from calipy.ipam.handle_writer import Account, HandleWriter
from calipy.ipam.handles import decremented, incremented, new_handle, object_name
from calipy.resources import ipam_handles

if TYPE_CHECKING:
    from tests.unit.ipam.conftest import Cluster

A, B = "10.0.0.0/26", "fd00::/122"


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({A: 1}, {A: 1}, {A: 2}),
        ({A: 1}, {B: 2}, {A: 1, B: 2}),
        ({A: 1}, {A: 1, B: 1}, {A: 2, B: 1}),
    ],
)
def test_counting_up(before: dict[str, int], change: dict[str, int], after: dict[str, int]) -> None:
    assert incremented(new_handle("k8s.a", before), change).spec.block == after


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({A: 2}, {A: 1}, {A: 1}),
        ({A: 1, B: 1}, {A: 1}, {B: 1}),
        ({A: 1, B: 1}, {A: 1, B: 1}, None),
        ({A: 1}, {A: 5}, None),  # never below nothing
        ({A: 1}, {B: 1}, {A: 1}),
    ],
)
def test_counting_down(before: dict[str, int], change: dict[str, int], after: dict[str, int] | None) -> None:
    left = decremented(new_handle("k8s.a", before), change)
    assert (left.spec.block if left else None) == after


def test_the_object_has_the_handles_name_in_lower_case() -> None:
    assert object_name("k8s-pod-network.ABC") == "k8s-pod-network.abc"


async def test_counts_survive_any_number_of_writers(cluster: Cluster) -> None:
    writers = [HandleWriter(cluster.store) for _ in range(4)]
    await asyncio.gather(*(writer.add("k8s.a", {A: 1, B: 2}) for writer in writers for _ in range(3)))
    assert await cluster.handles() == {"k8s.a": {A: 12, B: 24}}
    await asyncio.gather(*(writer.subtract("k8s.a", {A: 1, B: 2}) for writer in writers for _ in range(3)))
    assert await cluster.handles() == {}


async def test_what_was_written_here_needs_no_reading(cluster: Cluster) -> None:
    store = cluster.counting()
    writer = HandleWriter(store)
    await writer.add("k8s.a", {A: 1})
    await writer.add("k8s.a", {A: 1})
    await writer.subtract("k8s.a", {A: 2})
    assert store.calls == {"create IPAMHandle": 1, "update IPAMHandle": 1, "delete IPAMHandle": 1}


async def test_what_another_writer_did_is_read_again(cluster: Cluster) -> None:
    writer, other = HandleWriter(cluster.store), HandleWriter(cluster.store)
    await writer.add("k8s.a", {A: 1})
    await other.subtract("k8s.a", {A: 1})
    await other.add("k8s.a", {B: 1})
    await writer.add("k8s.a", {A: 1})
    assert await cluster.handles() == {"k8s.a": {A: 1, B: 1}}
    await other.subtract("k8s.a", {A: 1, B: 1})
    assert await writer.subtract("k8s.a", {A: 1}) is None


async def test_a_softly_deleted_handle_makes_room(cluster: Cluster) -> None:
    gone = new_handle("k8s.a", {A: 7})
    await cluster.store.create(ipam_handles.KIND, structs.replace(gone, spec=structs.replace(gone.spec, deleted=True)))
    writer = HandleWriter(cluster.store)
    assert await writer.read("k8s.a") is None
    await writer.add("k8s.a", {A: 1})
    assert await cluster.handles() == {"k8s.a": {A: 1}}


async def test_an_account_counts_ahead_what_is_missing_and_takes_back_what_is_left(cluster: Cluster) -> None:
    store = cluster.counting()
    account = Account(HandleWriter(store), "k8s.a")
    await account.cover({A: 2, B: 1})
    await account.cover({A: 1})
    assert store.calls == {"create IPAMHandle": 1}
    account.used(A, 1)
    await account.close()
    assert await cluster.handles() == {"k8s.a": {A: 1}}


async def test_what_may_have_been_given_stays_counted(cluster: Cluster) -> None:
    account = Account(HandleWriter(cluster.store), "k8s.a")
    await account.cover({A: 1, B: 1})
    account.forsake(A)
    await account.close()
    assert await cluster.handles() == {"k8s.a": {A: 1}}


async def test_a_store_that_goes_away_at_the_end_leaves_the_count_too_high(cluster: Cluster) -> None:
    account = Account(HandleWriter(cluster.failing(at=2, landed=False, dead=False)), "k8s.a")
    await account.cover({A: 1})
    await account.close()
    assert await cluster.handles() == {"k8s.a": {A: 1}}
