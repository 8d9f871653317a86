"""Which pools count for whom, in which order blocks are tried, and what a claim may become."""

from __future__ import annotations

import ipaddress
from itertools import islice, pairwise
from typing import get_args

import pytest
from msgspec import structs

from calipy.ipam import claims
from calipy.ipam.errors import Unusable
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec, labels_of, name_of
from calipy.resources.conditions import Condition
from calipy.resources.ip_pools import IPPool, IPPoolSpec, IPPoolStatus
from calipy.resources.metadata import ObjectMeta


def pool(name: str, cidr: str = "10.0.0.0/16", **fields: object) -> IPPool:
    return IPPool(metadata=ObjectMeta(name=name), spec=IPPoolSpec(cidr=cidr, **fields))  # type: ignore[arg-type]


def not_allocatable(found: IPPool) -> IPPool:
    return structs.replace(found, status=IPPoolStatus(conditions=(Condition(type="Allocatable", status="False"),)))


def going(found: IPPool) -> IPPool:
    return structs.replace(found, metadata=structs.replace(found.metadata, deletion_timestamp="2026-01-01T00:00:00Z"))


POOLS = [
    pool("zebra"),
    pool("apple", "10.1.0.0/16"),
    pool("manual", "10.2.0.0/16", assignment_mode="Manual"),
    pool("off", "10.3.0.0/16", disabled=True),
    pool("rack", "10.4.0.0/16", node_selector="rack == 'r1'"),
    pool("blue", "10.5.0.0/16", namespace_selector="team == 'blue'", allowed_uses=("Workload",)),
    pool("bare", "10.6.0.0/16", namespace_selector="!has(team)", allowed_uses=("Workload",)),
    pool("tunnels", "10.7.0.0/16", allowed_uses=("Tunnel",)),
    pool("services", "10.8.0.0/16", allowed_uses=("LoadBalancer",)),
    not_allocatable(pool("broken", "10.9.0.0/16")),
    going(pool("gone", "10.10.0.0/16")),
    pool("six", "fd00::/48"),
]
R1, BLUE = {"rack": "r1"}, {"team": "blue"}


@pytest.mark.parametrize(
    ("family", "use", "explicit", "node", "namespace", "expected"),
    [
        # by themselves: enabled, Automatic, selected by node and namespace, in the order of their names
        (4, "Workload", (), {}, None, "apple bare zebra"),
        (4, "Workload", (), {}, {}, "apple bare zebra"),
        (4, "Workload", (), {}, BLUE, "apple blue zebra"),
        (4, "Workload", (), R1, {"team": "red"}, "apple rack zebra"),
        (4, "Tunnel", (), {}, None, "apple tunnels zebra"),
        (4, "LoadBalancer", (), {}, None, "services"),
        (6, "Workload", (), {}, None, "six"),
        # asked for: selectors and assignmentMode don't count, uses do; in the order asked for
        (4, "Workload", ("manual",), {}, None, "manual"),
        (4, "Workload", ("rack", "blue"), {}, None, "rack blue"),
        (4, "Workload", ("zebra", "apple"), {}, None, "zebra apple"),
        (4, "Workload", ("10.1.0.0/16",), {}, None, "apple"),
        (4, "Workload", ("apple", "10.1.0.0/16"), {}, None, "apple"),
        (4, "Workload", ("tunnels", "apple"), {}, None, "apple"),
    ],
)
def test_the_pools_that_count(
    family: int, use: str, explicit: tuple[str, ...], node: dict[str, str], namespace: dict[str, str], expected: str
) -> None:
    found = claims.usable_pools(POOLS, family, use, explicit, node, namespace)  # type: ignore[arg-type]
    assert " ".join(found_pool.metadata.name for found_pool in found) == expected


@pytest.mark.parametrize(
    ("explicit", "use", "words"),
    [
        (("nosuch",), "Workload", "there is no IPv4 pool nosuch; create it or ask for another one"),
        (("apple", "nosuch"), "Workload", "there is no IPv4 pool nosuch"),
        (("six",), "Workload", "there is no IPv4 pool six"),
        (("off",), "Workload", "pool off is disabled; mend it"),
        (("gone",), "Workload", "pool gone is being deleted; mend it"),
        (("broken",), "Workload", "pool broken can't be drawn from: see its conditions; mend it"),
        (("tunnels",), "Workload", "no IPv4 pool can be used for Workload here (tunnels allows Tunnel only); "),
    ],
)
def test_a_pool_that_was_asked_for_must_be_usable(explicit: tuple[str, ...], use: str, words: str) -> None:
    with pytest.raises(Unusable) as raised:
        claims.usable_pools(POOLS, 4, use, explicit, {}, None)  # type: ignore[arg-type]
    assert str(raised.value).startswith(words)


def test_without_a_pool_the_error_says_why_not_of_each() -> None:
    few = [found for found in POOLS if found.metadata.name in ("rack", "blue", "manual", "off", "tunnels")]
    with pytest.raises(Unusable) as raised:
        claims.usable_pools(few, 4, "Workload", (), {}, None)
    for reason in (
        "rack doesn't select this node (nodeSelector rack == 'r1')",
        "blue doesn't select the namespace (namespaceSelector team == 'blue')",
        "manual is for explicit requests only (assignmentMode Manual)",
        "off is disabled",
        "tunnels allows Tunnel only",
    ):
        assert reason in str(raised.value)
    with pytest.raises(Unusable, match=r"no IPv6 pool can be used for Workload here \(there is none\); create one"):
        claims.usable_pools(few, 6, "Workload", (), {}, None)


@pytest.mark.parametrize(
    ("found", "keeps"),
    [
        (pool("p"), True),
        (pool("p", disabled=True), True),  # it may be enabled again
        (pool("p", node_selector="rack == 'r1'"), True),
        (pool("p", node_selector="rack == 'r2'"), False),
        (going(pool("p")), False),  # its finalizer waits for the blocks
        (None, False),
    ],
)
def test_empty_blocks_are_kept_of_pools_that_select_the_node(found: IPPool | None, keeps: bool) -> None:
    assert claims.keeps(found, R1) == keeps


# --- order of blocks ---


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "10.0.0.0/26", "fd00::/116"])
def test_every_block_is_a_candidate_once_and_distance_is_its_place(cidr: str) -> None:
    small = pool("p", cidr)
    found = list(claims.candidates(small, "n1"))
    expected = ipaddress.ip_network(cidr).subnets(new_prefix=small.block_size)
    assert sorted(found, key=ipaddress.ip_network) == [str(network) for network in expected]
    assert [claims.distance(small, "n1", block) for block in found] == list(range(len(found)))
    places = [int(ipaddress.ip_network(block).network_address) for block in found]
    assert sum(later < earlier for earlier, later in pairwise(places)) <= 1  # once round


def test_nodes_start_apart() -> None:
    large = pool("p", "10.0.0.0/16")
    starts = {next(claims.candidates(large, f"node-{n}")) for n in range(50)}
    assert len(starts) >= 45  # of 1024 places


@pytest.mark.parametrize("seed", [f"n{n}" for n in range(8)])
def test_wholly_reserved_blocks_are_no_candidates(seed: str) -> None:
    small = pool("p", "10.0.0.0/27", block_size=29)
    reserved = [ipaddress.ip_network(text) for text in ("10.0.0.0/29", "10.0.0.16/28", "10.0.0.8/30", "fd00::/8")]
    assert list(claims.candidates(small, seed, reserved)) == ["10.0.0.8/29"]
    assert list(claims.candidates(small, seed, [ipaddress.ip_network("10.0.0.0/8")])) == []


def test_a_large_reservation_is_left_in_one_step() -> None:
    large = pool("p", "fd00::/32")
    for seed in ("n1", "n2", "n3"):
        found = next(claims.candidates(large, seed, [ipaddress.ip_network("fd00::/33")]))
        assert found.startswith("fd00:0:8000:")


def test_a_huge_pool_is_walked_lazily() -> None:
    assert len(list(islice(claims.candidates(pool("p", "fd00::/16"), "n1"), 5))) == 5


@pytest.mark.parametrize(
    ("cidr", "size", "address", "block"),
    [
        ("10.0.0.0/16", 0, "10.0.3.77", "10.0.3.64/26"),
        ("10.0.0.0/16", 32, "10.0.3.77", "10.0.3.77/32"),
        ("fd00::/48", 0, "fd00::77", "fd00::40/122"),
        ("fd00::/48", 128, "fd00::77", "fd00::77/128"),
    ],
)
def test_the_block_of_an_address(cidr: str, size: int, address: str, block: str) -> None:
    assert claims.block_of(pool("p", cidr, block_size=size), address) == block


def test_the_pool_of_a_block_is_one_that_covers_it() -> None:
    found = claims.pool_of(POOLS, "10.4.1.0/26")
    assert found is not None
    assert found.metadata.name == "rack"
    assert claims.pool_of(POOLS, "192.0.2.0/26") is None
    assert claims.pool_of([pool("p", "10.0.0.0/28")], "10.0.0.0/26") is None


@pytest.mark.parametrize(("configured", "requested", "limit"), [(0, 0, 20), (5, 0, 5), (0, 7, 7), (5, 7, 5), (9, 7, 7)])
def test_the_block_limit(configured: int, requested: int, limit: int) -> None:
    assert claims.block_limit(configured, requested) == limit


# --- claims ---


def test_a_claim_goes_its_way_and_no_other() -> None:
    for before in ("pending", "confirmed", "pendingDeletion", ""):
        claim = BlockAffinity(
            metadata=ObjectMeta(name="x", labels={"mine": "too"}),
            spec=BlockAffinitySpec(cidr="10.0.0.0/26", node="n1", state=before),  # type: ignore[arg-type]
        )
        for after in get_args(claims.Next):
            if (before or "confirmed", after) in claims.TRANSITIONS:
                new = claims.moved(claim, after)
                assert new.spec.state == after
                assert new.metadata.labels == {"mine": "too", **labels_of("n1", "10.0.0.0/26")}
            else:
                with pytest.raises(ValueError, match=f"claim x can't go from {before or 'confirmed'} to {after}"):
                    claims.moved(claim, after)


def test_pending_and_going_claims_do_not_count_as_owned() -> None:
    claim = claims.new_affinity("n1", "10.0.0.0/26")
    assert not claim.confirmed
    assert claims.moved(claim, "confirmed").confirmed
    assert not claims.moved(claim, "pendingDeletion").confirmed


@pytest.mark.parametrize(
    ("node", "cidr", "name"),
    [
        ("n1", "10.244.1.0/26", "n1-10-244-1-0-26"),
        ("n1", "fd00:10:244::/122", "n1-fd00-10-244---122"),
        ("x" * 238, "10.244.1.0/26", "x" * 238 + "-10-244-1-0-26"),  # 252 characters
        # 253: cut to 252 - 13 - 13 characters; the hash by `printf %s "$node+10-244-1-0-26" | sha256sum | cut -c1-11`
        ("x" * 239, "10.244.1.0/26", "x" * 226 + "-10-244-1-0-26-53530cf6dd2"),
    ],
)
def test_names_of_claims(node: str, cidr: str, name: str) -> None:
    assert name_of(node, cidr) == name
    assert len(name_of(node, cidr)) <= 252


@pytest.mark.parametrize(
    ("affinity", "node"), [("host:n1", "n1"), ("host:a.b-c", "a.b-c"), ("virtual:load-balancer", ""), (None, "")]
)
def test_owners_that_are_nodes(affinity: str | None, node: str) -> None:
    assert claims.node_of(affinity) == node
