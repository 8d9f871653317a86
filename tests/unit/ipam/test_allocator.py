"""The allocator on a real store: calico.md's rules for giving addresses out and taking them back, one by one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from calipy.datastore.stores import NotFound
from calipy.ipam.blocks import allocate, new_block
from calipy.ipam.claims import new_affinity
from calipy.ipam.errors import (
    AlreadyAssigned,
    BlockLimit,
    Corrupt,
    Exhausted,
    IPAMError,
    Mismatch,
    NotOurs,
    Unusable,
)
from calipy.ipam.handles import new_handle
from calipy.resources import block_affinities, ipam_blocks, ipam_handles
from calipy.resources.block_affinities import labels_of, name_of

if TYPE_CHECKING:
    from tests.unit.ipam.conftest import Cluster


async def take(cluster: Cluster, name: str, node: str = "n1", count: int = 1, **fields: object) -> tuple[str, ...]:
    """One request on a fresh allocator, after which the mirror catches up."""
    await cluster.sync()
    given = await cluster.allocator(node).assign(cluster.request(name, node, count=count, **fields))
    await cluster.sync()
    return cluster.holds(name, node, given)


def block_of(address: str, size: int = 8) -> str:
    first, _, last = address.rpartition(".")
    return f"{first}.{int(last) // size * size}/29"


# --- giving out ---


async def test_the_first_address_of_a_node_claims_a_block_in_three_steps(cluster: Cluster) -> None:
    (address,) = await take(cluster, "a")
    cidr = block_of(address)
    assert await cluster.blocks() == {cidr: "host:n1"}
    assert await cluster.claims() == {f"n1 {cidr}": "confirmed"}
    assert await cluster.handles() == {"k8s.a": {cidr: 1}}
    (claim,) = await cluster.all(block_affinities.KIND)
    assert claim.metadata.labels == labels_of("n1", cidr)
    assert (await cluster.judged()).findings == ()


async def test_addresses_come_first_in_first_out(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    allocator = cluster.allocator("n1")
    given = [(await allocator.assign(cluster.request(name, "n1")))[0].address for name in "abc"]
    assert given == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
    await allocator.release("k8s.b")
    await allocator.release("k8s.a")
    again = [(await allocator.assign(cluster.request(name, "n1")))[0].address for name in "def"]
    assert again == ["10.0.0.3", "10.0.0.1", "10.0.0.0"]


async def test_in_steady_state_an_address_costs_two_writes_and_no_read(cluster: Cluster) -> None:
    store = cluster.counting()
    allocator = cluster.allocator("n1", store)
    await allocator.assign(cluster.request("a", "n1"))
    store.calls.clear()
    await allocator.assign(cluster.request("b", "n1"))
    assert store.calls == {"create IPAMHandle": 1, "update IPAMBlock": 1}
    store.calls.clear()
    await allocator.release("k8s.b")
    assert store.calls == {"update IPAMBlock": 1, "delete IPAMHandle": 1}


async def test_both_families_share_one_handle_write(cluster: Cluster) -> None:
    cluster.pool("six", "fd00::/120", 122)
    store = cluster.counting()
    allocator = cluster.allocator("n1", store)
    await allocator.assign(cluster.request("a", "n1", 4, 6))
    store.calls.clear()
    given = await allocator.assign(cluster.request("b", "n1", 6, 4))
    assert [":" in assigned.address for assigned in given] == [False, True]
    assert store.calls == {"create IPAMHandle": 1, "update IPAMBlock": 2}
    store.calls.clear()
    await allocator.release("k8s.b")
    assert store.calls == {"update IPAMBlock": 2, "delete IPAMHandle": 1}


async def test_thirty_requests_at_once_share_a_few_block_writes(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/24", 26)
    store = cluster.counting()
    allocator = cluster.allocator("n1", store)
    await allocator.assign(cluster.request("first", "n1"))
    store.calls.clear()
    requests = [cluster.request(f"p{n}", "n1") for n in range(30)]
    given = await asyncio.gather(*(allocator.assign(request) for request in requests))
    assert len({assigned.address for (assigned,) in given}) == 30
    assert store.calls["update IPAMBlock"] <= 3
    assert store.calls["create IPAMHandle"] == 30
    store.calls.clear()
    await asyncio.gather(*(allocator.release(request.handle) for request in requests))
    assert store.calls["update IPAMBlock"] <= 3
    assert await cluster.handles() == {"k8s.first": {given[0][0].block: 1}}


async def test_the_sequence_number_goes_up_by_one_with_each_write_and_stamps_what_it_gives(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/29", 29)
    allocator = cluster.allocator("n1")
    await allocator.assign(cluster.request("a", "n1"))
    seed = int(cluster.now * 1e9)
    spec = (await cluster.block("10.0.0.0/29")).spec
    assert (spec.sequence_number, spec.sequence_number_for_allocation) == (seed + 1, {"0": seed})
    await asyncio.gather(*(allocator.assign(cluster.request(name, "n1")) for name in "bc"))
    spec = (await cluster.block("10.0.0.0/29")).spec
    assert (spec.sequence_number, spec.sequence_number_for_allocation) == (
        seed + 2, {"0": seed, "1": seed + 1, "2": seed + 1})  # fmt: skip
    await allocator.release("k8s.a")
    spec = (await cluster.block("10.0.0.0/29")).spec
    assert (spec.sequence_number, spec.sequence_number_for_allocation) == (
        seed + 3, {"1": seed + 1, "2": seed + 1})  # fmt: skip


async def test_both_families_or_none(cluster: Cluster) -> None:
    cluster.pool("six", "fd00::/128", 128)
    allocator = cluster.allocator("n1")
    await allocator.assign(cluster.request("a", "n1", 4, 6))
    with pytest.raises(Exhausted, match="no IPv6 address is free in pools six"):
        await allocator.assign(cluster.request("b", "n1", 4, 6))
    assert list(await cluster.handles()) == ["k8s.a"]
    assert sum(pool.allocated for pool in (await cluster.judged()).pools) == 2


async def test_several_addresses_or_none(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/29", 30)
    assert len(await take(cluster, "a", count=6)) == 6
    with pytest.raises(Exhausted):
        await take(cluster, "b", count=3)
    assert list(await cluster.handles()) == ["k8s.a"]
    assert len(await take(cluster, "c", count=2)) == 2
    assert (await cluster.judged()).findings == ()


async def test_reserved_addresses_are_passed_over_and_keep_their_place(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    cluster.reserved = ["10.0.0.0/31"]
    assert await take(cluster, "a") == ("10.0.0.2",)
    assert (await cluster.block("10.0.0.0/30")).spec.unallocated == (0, 1, 3)


async def test_a_block_that_is_wholly_reserved_is_not_claimed(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/28", 30)
    cluster.reserved = ["10.0.0.0/29", "10.0.0.8/30"]
    assert await take(cluster, "a") == ("10.0.0.12",)
    assert list(await cluster.blocks()) == ["10.0.0.12/30"]


async def test_a_large_pool_that_is_half_reserved_is_no_long_search(cluster: Cluster) -> None:
    cluster.pool("six", "fd00::/48", 122)
    cluster.reserved = ["fd00::/49"]
    (given,) = await cluster.allocator("n1").assign(cluster.request("a", "n1", 6))
    assert given.address.startswith("fd00:0:0:8000:")


@pytest.mark.parametrize(("cidr", "size", "family"), [("10.0.0.0/30", 32, 4), ("fd00::/126", 128, 6)])
async def test_blocks_of_one_address(cluster: Cluster, cidr: str, size: int, family: int) -> None:
    cluster.pool("single", cidr, size)
    allocator = cluster.allocator("n1")
    fields = {"pools": {family: ("single",)}}
    given = [await allocator.assign(cluster.request(str(n), "n1", family, **fields)) for n in range(4)]
    assert len({assigned.address for (assigned,) in given}) == 4
    assert len(await cluster.blocks()) == 4
    with pytest.raises(Exhausted):
        await allocator.assign(cluster.request("x", "n1", family, **fields))


async def test_a_block_whose_addresses_have_cooled_down_is_empty_without_another_write(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    cluster.configure(ip_cooldown_seconds=300, strict_affinity=True)
    await take(cluster, "a", "n1")
    await cluster.allocator("n1").release("k8s.a")
    cluster.now += 299
    with pytest.raises(Exhausted):
        await take(cluster, "b", "n2")
    cluster.now += 1
    await take(cluster, "b", "n2")
    assert await cluster.blocks() == {"10.0.0.0/30": "host:n2"}


async def test_a_freed_address_waits_for_its_cooldown(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/32", 32)
    cluster.configure(ip_cooldown_seconds=30)
    assert await take(cluster, "a") == ("10.0.0.0",)
    allocator = cluster.allocator("n1")
    assert await allocator.release("k8s.a") == ("10.0.0.0",)
    cluster.now += 29.9
    with pytest.raises(Exhausted):
        await allocator.assign(cluster.request("b", "n1"))
    with pytest.raises(AlreadyAssigned, match=r"10\.0\.0\.0 is cooling down after its release; "):
        await allocator.assign_address("10.0.0.0", "k8s.b", {})
    cluster.now += 0.1
    assert (await allocator.assign(cluster.request("b", "n1")))[0].address == "10.0.0.0"


# --- whose blocks ---


async def test_a_new_process_goes_on_with_its_nodes_blocks(cluster: Cluster) -> None:
    (first,) = await take(cluster, "a")
    (second,) = await take(cluster, "b")
    assert block_of(first) == block_of(second)


async def test_claims_of_an_earlier_process_are_finished_before_new_ones_are_made(cluster: Cluster) -> None:
    await cluster.store.create(block_affinities.KIND, new_affinity("n1", "10.0.0.8/29"))
    (address,) = await take(cluster, "a")
    assert block_of(address) == "10.0.0.8/29"
    assert await cluster.claims() == {"n1 10.0.0.8/29": "confirmed"}


async def test_an_unconfirmed_claim_on_an_existing_block_is_confirmed_after_a_new_revision(cluster: Cluster) -> None:
    await cluster.store.create(block_affinities.KIND, new_affinity("n1", "10.0.0.8/29"))
    await cluster.store.create(ipam_blocks.KIND, new_block("10.0.0.8/29", "host:n1", 5.0))
    (address,) = await take(cluster, "a")
    assert block_of(address) == "10.0.0.8/29"
    assert (await cluster.block("10.0.0.8/29")).spec.sequence_number == 5 * 10**9 + 2  # touched, then given from
    assert await cluster.claims() == {"n1 10.0.0.8/29": "confirmed"}


async def test_a_block_that_is_gone_is_made_again(cluster: Cluster) -> None:
    (address,) = await take(cluster, "a")
    cidr = block_of(address)
    await cluster.allocator("n1").release("k8s.a")
    stored = await cluster.store.get(ipam_blocks.KIND, ipam_blocks.name_of(cidr))
    await cluster.store.delete(ipam_blocks.KIND, stored)
    (again,) = await take(cluster, "b")
    assert block_of(again) == cidr
    assert await cluster.claims() == {f"n1 {cidr}": "confirmed"}


async def test_a_claim_on_a_block_of_another_node_is_withdrawn(cluster: Cluster) -> None:
    stale = new_affinity("n1", "10.0.0.8/29")
    stale = structs.replace(stale, spec=structs.replace(stale.spec, state="confirmed"))
    await cluster.store.create(block_affinities.KIND, stale)
    await cluster.store.create(ipam_blocks.KIND, new_block("10.0.0.8/29", "host:n2", 5.0))
    (address,) = await take(cluster, "a")
    assert block_of(address) != "10.0.0.8/29"
    assert list(await cluster.claims()) == [f"n1 {block_of(address)}"]


async def test_softly_deleted_objects_count_as_absent_and_are_helped_along(cluster: Cluster) -> None:
    cidr = "10.0.0.0/29"
    cluster.pool("default", cidr, 29)
    claim, block, handle = new_affinity("n1", cidr), new_block(cidr, "host:n2", 5.0), new_handle("k8s.a", {cidr: 3})
    for kind, value in ((block_affinities.KIND, claim), (ipam_blocks.KIND, block), (ipam_handles.KIND, handle)):
        await cluster.store.create(kind, structs.replace(value, spec=structs.replace(value.spec, deleted=True)))  # type: ignore[attr-defined]
    assert await take(cluster, "a") == ("10.0.0.0",)
    assert await cluster.blocks() == {cidr: "host:n1"}
    assert await cluster.claims() == {f"n1 {cidr}": "confirmed"}
    assert await cluster.handles() == {"k8s.a": {cidr: 1}}
    assert (await cluster.judged()).findings == ()


async def test_empty_blocks_of_pools_that_no_longer_select_the_node_are_given_up(cluster: Cluster) -> None:
    cluster.pool("old", "10.0.1.0/28", 29)
    await take(cluster, "a", pools={4: ("old",)})
    (cidr,) = await cluster.blocks()
    cluster.pool("old", "10.0.1.0/28", 29, node_selector="rack == 'r2'")
    allocator = cluster.allocator("n1")
    await allocator.assign(cluster.request("b", "n1"))
    assert cidr in await cluster.blocks()  # a pod is still on it
    await allocator.release("k8s.a")
    assert cidr not in await cluster.blocks()
    assert f"n1 {cidr}" not in await cluster.claims()


async def test_a_new_process_gives_such_blocks_up_when_it_needs_another_block(cluster: Cluster) -> None:
    cluster.pool("old", "10.0.1.0/29", 29)
    await take(cluster, "a", pools={4: ("old",)})
    await cluster.allocator("n1").release("k8s.a")
    cluster.pool("old", "10.0.1.0/29", 29, node_selector="rack == 'r2'")
    (address,) = await take(cluster, "b")
    assert list(await cluster.blocks()) == [block_of(address)]


@pytest.mark.parametrize(("limit", "blocks"), [(0, 20), (1, 1), (3, 3)])
async def test_at_the_block_limit_there_is_an_error_and_nothing_is_borrowed(
    cluster: Cluster, limit: int, blocks: int
) -> None:
    cluster.pool("default", "10.0.0.0/26", 31)
    cluster.configure(max_blocks_per_host=limit)
    await take(cluster, "other", "n2", count=1)
    await take(cluster, "a", count=blocks * 2)
    held = "1 IPv4 block" if blocks == 1 else f"{blocks} IPv4 blocks"
    with pytest.raises(BlockLimit, match=f"node n1 holds {held}, its limit.*; raise maxBlocksPerHost"):
        await take(cluster, "b")
    assert sum(owner == "host:n1" for owner in (await cluster.blocks()).values()) == blocks


async def test_the_limit_counts_each_family_by_itself(cluster: Cluster) -> None:
    cluster.pool("six", "fd00::/120", 127)
    cluster.configure(max_blocks_per_host=1, strict_affinity=True)
    allocator = cluster.allocator("n1")
    assert len(await allocator.assign(cluster.request("a", "n1", 4, 6))) == 2


async def test_a_full_cluster_borrows_and_says_so_in_the_attributes(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/29", 30)
    await take(cluster, "a", "n1", count=2)
    await take(cluster, "b", "n2", count=2)
    (borrowed,) = await take(cluster, "c", "n3")
    verdict = await cluster.judged()
    assert verdict.findings == ()
    assert [a.address for a in verdict.allocations if a.borrowed] == [borrowed]
    assert verdict.pools[0].borrowed == 1


async def test_borrowing_from_a_large_pool_is_no_long_search(cluster: Cluster) -> None:
    cluster.pool("six", "fd00::/48", 122)
    await cluster.allocator("n2").assign(cluster.request("a", "n2", 6))
    cluster.configure(auto_allocate_blocks=False)
    (given,) = await cluster.allocator("n1").assign(cluster.request("b", "n1", 6))
    assert await cluster.blocks() == {given.block: "host:n2"}


async def test_strict_affinity_never_borrows(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    await take(cluster, "a", "n1")
    cluster.configure(strict_affinity=True)
    with pytest.raises(Exhausted, match=r"within the blocks of node n2 \(strictAffinity\)"):
        await take(cluster, "b", "n2")
    assert list(await cluster.handles()) == ["k8s.a"]


async def test_without_auto_allocation_no_block_is_claimed(cluster: Cluster) -> None:
    cluster.configure(auto_allocate_blocks=False, strict_affinity=True)
    with pytest.raises(Exhausted):
        await take(cluster, "a")
    assert await cluster.blocks() == {}


async def test_an_empty_block_is_stolen_sixty_seconds_after_its_claim(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    cluster.configure(strict_affinity=True)
    await take(cluster, "a", "n1")
    await cluster.allocator("n1").release("k8s.a")
    cluster.now += 59.9
    with pytest.raises(Exhausted):
        await take(cluster, "b", "n2")
    cluster.now += 0.1
    await take(cluster, "b", "n2")
    assert await cluster.blocks() == {"10.0.0.0/30": "host:n2"}
    assert await cluster.claims() == {"n2 10.0.0.0/30": "confirmed"}


async def test_a_node_that_was_stolen_from_notices(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    cluster.configure(strict_affinity=True)
    victim = cluster.allocator("n1")
    await victim.assign(cluster.request("a", "n1"))
    await victim.release("k8s.a")
    cluster.now += 60
    await take(cluster, "b", "n2")
    with pytest.raises(Exhausted):
        await victim.assign(cluster.request("c", "n1"))
    assert await cluster.claims() == {"n2 10.0.0.0/30": "confirmed"}
    assert list(await cluster.handles()) == ["k8s.b"]


async def test_a_lost_block_is_not_asked_for_again_while_the_mirror_is_late(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    cluster.configure(strict_affinity=True)
    await take(cluster, "a", "n1")
    await cluster.allocator("n1").release("k8s.a")
    cluster.now += 60
    await cluster.allocator("n2").assign(cluster.request("b", "n2"))
    store = cluster.counting()
    victim = cluster.allocator("n1", store)  # to its mirror the block is still its own
    for _ in range(2):
        store.calls.clear()
        with pytest.raises(Exhausted):
            await victim.assign(cluster.request("c", "n1"))
    assert {call for call in store.calls if not call.startswith(("get", "list"))} == set()


async def test_a_block_in_use_is_never_stolen(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/30", 30)
    cluster.configure(strict_affinity=True)
    await take(cluster, "a", "n1")
    cluster.now += 1000
    with pytest.raises(Exhausted):
        await take(cluster, "b", "n2")


async def test_two_processes_of_one_node_share_its_blocks(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/29", 29)
    one, other = cluster.allocator("n1"), cluster.allocator("n1")
    given = await asyncio.gather(
        *(
            allocator.assign(cluster.request(f"{n}{k}", "n1"))
            for n in range(4)
            for k, allocator in enumerate((one, other))
        )
    )
    assert len({assigned.address for (assigned,) in given}) == 8
    assert await cluster.claims() == {"n1 10.0.0.0/29": "confirmed"}


async def test_nodes_that_claim_at_once_never_share_a_block(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/28", 31)
    allocators = [cluster.allocator(f"n{n}") for n in range(8)]
    await asyncio.gather(*(a.assign(cluster.request(str(n), f"n{n}")) for n, a in enumerate(allocators)))
    assert sorted((await cluster.blocks()).values()) == [f"host:n{n}" for n in range(8)]  # type: ignore[type-var]
    assert set((await cluster.claims()).values()) == {"confirmed"}


async def test_a_corrupt_block_is_left_alone(cluster: Cluster) -> None:
    (address,) = await take(cluster, "a")
    cidr = block_of(address)
    stored = await cluster.store.get(ipam_blocks.KIND, ipam_blocks.name_of(cidr))
    await cluster.store.delete(ipam_blocks.KIND, stored)
    spec = structs.replace(stored.value.spec, attributes=())
    broken = structs.replace(stored.value, spec=spec, metadata=structs.replace(stored.value.metadata, uid=""))
    await write_unjudged(cluster, broken)
    (other,) = await take(cluster, "b")
    assert block_of(other) != cidr
    await cluster.allocator("n1").adopt()
    with pytest.raises(Corrupt, match=rf"block {cidr} is corrupt: spec.allocations\[0\]: points at attribute 0 of 0; "):
        await cluster.allocator("n1").release("k8s.a")


async def write_unjudged(cluster: Cluster, block: ipam_blocks.IPAMBlock) -> None:
    """What another program might write."""
    kind = structs.replace(ipam_blocks.KIND, problems=lambda value: ())
    await cluster.store.create(kind, block)


# --- certain addresses ---


async def test_a_certain_address_may_be_reserved_and_claims_its_block(cluster: Cluster) -> None:
    cluster.reserved = ["10.0.0.0/28"]
    given = await cluster.allocator("n1").assign_address("10.0.0.9", "k8s.a", {"node": "n1"})
    assert (given.address, given.block) == ("10.0.0.9", "10.0.0.8/29")
    assert await cluster.claims() == {"n1 10.0.0.8/29": "confirmed"}
    assert await cluster.handles() == {"k8s.a": {"10.0.0.8/29": 1}}


async def test_a_certain_address_of_another_nodes_block_is_borrowed_unless_strict(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/29", 29)
    await take(cluster, "a", "n1")
    await cluster.allocator("n2").assign_address("10.0.0.5", "k8s.b", {})
    cluster.configure(strict_affinity=True)
    with pytest.raises(
        NotOurs, match=r"10\.0\.0\.6 lies in block 10\.0\.0\.0/29 of host:n1, and strictAffinity forbids"
    ):
        await cluster.allocator("n2").assign_address("10.0.0.6", "k8s.c", {})
    assert sorted(await cluster.handles()) == ["k8s.a", "k8s.b"]


async def test_a_certain_address_that_is_held_is_refused_and_names_its_holder(cluster: Cluster) -> None:
    allocator = cluster.allocator("n1")
    await allocator.assign_address("10.0.0.9", "k8s.a", {"pod": "a"})
    for handle in ("k8s.b", "k8s.a"):
        with pytest.raises(AlreadyAssigned, match=r"10\.0\.0\.9 is held by handle 'k8s\.a'; ask for another one"):
            await allocator.assign_address("10.0.0.9", handle, {"pod": "b"})
    assert await cluster.handles() == {"k8s.a": {"10.0.0.8/29": 1}}


@pytest.mark.parametrize(
    ("fields", "address", "reason"),
    [
        ({}, "192.0.2.1", "lies in no pool"),
        ({"disabled": True}, "10.0.1.1", "lies in pool p, which is disabled or going"),
        ({"allowed_uses": ("Tunnel",)}, "10.0.1.1", "lies in pool p, which isn't for Workload"),
    ],
)
async def test_a_certain_address_needs_a_pool_that_gives_it(
    cluster: Cluster, fields: dict[str, object], address: str, reason: str
) -> None:
    cluster.pool("p", "10.0.1.0/24", **fields)
    with pytest.raises(Unusable, match=f"address {address} {reason}.*; "):
        await cluster.allocator("n1").assign_address(address, "k8s.a", {})
    assert await cluster.handles() == {}


async def test_a_certain_address_ignores_selectors(cluster: Cluster) -> None:
    cluster.pool("p", "10.0.1.0/24", node_selector="has(x)", namespace_selector="has(y)", assignment_mode="Manual")
    assert (await cluster.allocator("n1").assign_address("10.0.1.1", "k8s.a", {})).block == "10.0.1.0/26"


# --- taking back ---


async def test_a_handle_without_addresses_has_nothing_to_release(cluster: Cluster) -> None:
    assert await cluster.allocator("n1").release("k8s.nobody") == ()


async def test_handles_lie_under_their_lower_cased_name(cluster: Cluster) -> None:
    request = structs.replace(cluster.request("a", "n1"), handle="k8s.ABC")
    allocator = cluster.allocator("n1")
    await allocator.assign(request)
    (stored,) = await cluster.all(ipam_handles.KIND)
    assert (stored.metadata.name, stored.spec.handle_id) == ("k8s.abc", "k8s.ABC")
    assert len(await cluster.allocator("n1").release("k8s.ABC")) == 1


async def test_another_process_can_release(cluster: Cluster) -> None:
    addresses = await take(cluster, "a", count=3)
    other = cluster.allocator("n1")
    assert await other.addresses_of("k8s.a") == addresses
    assert sorted(await other.release("k8s.a")) == sorted(addresses)
    assert await cluster.handles() == {}
    assert await other.addresses_of("k8s.a") == ()


async def test_a_release_finds_addresses_that_another_process_gave_the_handle_meanwhile(cluster: Cluster) -> None:
    one, other = cluster.allocator("n1"), cluster.allocator("n2")
    await one.assign(cluster.request("a", "n1"))
    await other.assign(cluster.request("a", "n2"))
    assert len(await one.release("k8s.a")) == 2
    assert await cluster.handles() == {}


async def test_an_address_is_released_if_handle_and_sequence_number_are_right(cluster: Cluster) -> None:
    (address,) = await take(cluster, "a")
    allocator = cluster.allocator("n1")
    (held,) = (await cluster.judged()).allocations
    with pytest.raises(Mismatch, match=f"address {address} is held by handle 'k8s.a', not 'k8s.b'; "):
        await allocator.release_address(address, "k8s.b")
    with pytest.raises(Mismatch, match=f"address {address} was given out anew since it was looked at; "):
        await allocator.release_address(address, sequence=held.sequence + 1)
    assert await allocator.release_address(address, "k8s.a", held.sequence)
    assert not await allocator.release_address(address)
    assert await cluster.handles() == {}


async def test_an_address_that_cools_down_counts_as_released(cluster: Cluster) -> None:
    cluster.configure(ip_cooldown_seconds=30)
    (address,) = await take(cluster, "a")
    allocator = cluster.allocator("n1")
    assert await allocator.release_address(address)
    assert not await allocator.release_address(address)


async def test_an_address_without_a_handle_can_be_released(cluster: Cluster) -> None:
    block, (address,) = allocate(new_block("10.0.0.8/29", None, 5.0), 1, None, {})
    await cluster.store.create(ipam_blocks.KIND, block)
    assert await cluster.allocator("n1").release_address(address)
    assert await cluster.blocks() == {}  # nobody's, and empty now


async def test_an_address_outside_of_every_pool_can_be_released(cluster: Cluster) -> None:
    (address,) = await take(cluster, "a")
    cluster.pools = []
    assert await cluster.allocator("n1").release_address(address)
    assert await cluster.blocks() == {}


async def test_nobodys_block_goes_with_its_last_address(cluster: Cluster) -> None:
    addresses = await take(cluster, "a", count=2)
    cidr = block_of(addresses[0])
    stored = await cluster.store.get(ipam_blocks.KIND, ipam_blocks.name_of(cidr))
    spec = structs.replace(stored.value.spec, affinity=None)
    await cluster.store.update(ipam_blocks.KIND, stored, structs.replace(stored.value, spec=spec))
    claim = await cluster.store.get(block_affinities.KIND, name_of("n1", cidr))
    await cluster.store.delete(block_affinities.KIND, claim)
    allocator = cluster.allocator("n1")
    await allocator.release_address(addresses[0])
    assert await cluster.blocks() == {cidr: None}
    await allocator.release_address(addresses[1])
    assert await cluster.blocks() == {}


async def test_blocks_that_may_not_be_kept_go_when_the_pools_change(cluster: Cluster) -> None:
    cluster.pool("old", "10.0.1.0/28", 29)
    await take(cluster, "a", pools={4: ("old",)}, count=8)
    await take(cluster, "b", pools={4: ("old",)})
    allocator = cluster.allocator("n1")
    await allocator.adopt()
    assert len(await cluster.blocks()) == 2
    await allocator.release("k8s.b")
    cluster.pools = [pool for pool in cluster.pools if pool.metadata.name != "old"]
    await allocator.adopt()
    assert len(await cluster.blocks()) == 1  # in use


async def test_old_claims_get_their_labels(cluster: Cluster) -> None:
    old = new_affinity("n1", "10.0.0.8/29")
    old = structs.replace(old, metadata=structs.replace(old.metadata, labels={"mine": "too"}))
    old = structs.replace(old, spec=structs.replace(old.spec, state="confirmed"))
    await cluster.store.create(block_affinities.KIND, old)
    await cluster.sync()
    store = cluster.counting()
    allocator = cluster.allocator("n1", store)
    await allocator.adopt()
    (claim,) = await cluster.all(block_affinities.KIND)
    assert claim.metadata.labels == {"mine": "too", **labels_of("n1", "10.0.0.8/29")}
    await cluster.sync()
    store.calls.clear()
    await allocator.adopt()
    assert store.calls == {}


@pytest.mark.parametrize(
    ("state", "block", "claims", "blocks"),
    [
        ("pending", None, "confirmed", "host:n1"),
        ("pending", "host:n1", "confirmed", "host:n1"),
        ("pending", "host:n2", None, "host:n2"),
        ("pending", "nobody", None, None),
        ("pendingDeletion", None, None, "gone"),
        ("pendingDeletion", "host:n1", None, "gone"),
        ("pendingDeletion", "host:n2", None, "host:n2"),
        ("pendingDeletion", "host:n1 in use", "confirmed", "host:n1"),
    ],
)
async def test_what_a_killed_process_left_is_finished_at_the_start(
    cluster: Cluster, state: str, block: str | None, claims: str | None, blocks: str | None
) -> None:
    cidr = "10.0.0.8/29"
    claim = new_affinity("n1", cidr)
    await cluster.store.create(
        block_affinities.KIND, structs.replace(claim, spec=structs.replace(claim.spec, state=state))
    )
    if block is not None:
        owner = None if block == "nobody" else block.removesuffix(" in use")
        made = new_block(cidr, owner, 5.0)
        made = allocate(made, 1, "k8s.x", {})[0] if block in ("nobody", "host:n1 in use") else made
        await cluster.store.create(ipam_blocks.KIND, made)
    await cluster.sync()
    await cluster.allocator("n1").adopt()
    assert (await cluster.claims()).get(f"n1 {cidr}") == claims
    assert (await cluster.blocks()).get(cidr, "gone") == blocks


async def test_every_error_says_what_to_do(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/32", 32)
    allocator = cluster.allocator("n1")
    await allocator.assign(cluster.request("a", "n1"))
    for attempt in (
        allocator.assign(cluster.request("b", "n1")),
        allocator.assign(cluster.request("b", "n1", pools={4: ("none",)})),
        allocator.assign_address("10.0.0.0", "k8s.b", {}),
        allocator.release_address("10.0.0.0", "k8s.b"),
    ):
        with pytest.raises(IPAMError, match=r".+; .+"):
            await attempt


async def test_a_missing_object_is_no_surprise(cluster: Cluster) -> None:
    with pytest.raises(NotFound):
        await cluster.block("10.0.0.8/29")
    assert not await cluster.allocator("n1").release_address("10.0.0.9")
