"""What a node tells its peers."""

from __future__ import annotations

import pytest

from calipy.bgp.announcements import compute
from calipy.bgp.peers import Announcement, Peer, Topology
from calipy.resources.bgp_configurations import (
    BGPConfiguration,
    BGPConfigurationSpec,
    Community,
    PrefixAdvertisement,
)
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import ObjectMeta

V4 = Peer(name="v4", address="10.0.0.2", as_number=64512, local_address="10.0.0.1", local_as=64512)
V6 = Peer(name="v6", address="fd00::2", as_number=65001, local_address="fd00::1", local_as=64512)
TOPOLOGY = Topology(node="a", router_id="10.0.0.1", peers=(V4, V6))


def affinity(cidr: str, node: str = "a", **spec: object) -> BlockAffinity:
    return BlockAffinity(
        metadata=ObjectMeta(name=cidr),
        spec=BlockAffinitySpec(cidr=cidr, node=node, **{"state": "confirmed", **spec}),  # type: ignore[arg-type]
    )


def pool(cidr: str, **spec: object) -> IPPool:
    return IPPool(metadata=ObjectMeta(name=cidr), spec=IPPoolSpec(cidr=cidr, **spec))  # type: ignore[arg-type]


def configuration(name: str = "default", **spec: object) -> BGPConfiguration:
    return BGPConfiguration(metadata=ObjectMeta(name=name), spec=BGPConfigurationSpec(**spec))  # type: ignore[arg-type]


POOLS = [pool("10.1.0.0/16"), pool("fd10::/64"), pool("10.2.0.0/16", disable_bgp_export=True)]
OLD = pool("10.3.0.0/16", disabled=True)


def told(
    affinities: list[BlockAffinity], addresses: list[str], *pools: IPPool, peer: str = "v4"
) -> list[str]:  # fmt: skip
    return [a.prefix for a in compute("a", TOPOLOGY, affinities, [*POOLS, *pools], addresses, [])[peer]]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (affinity("10.1.0.0/26"), ["10.1.0.0/26"]),
        (affinity("10.1.0.0/26", state=""), ["10.1.0.0/26"]),
        (affinity("10.1.0.0/32"), ["10.1.0.0/32"]),
        (affinity("10.1.0.0/26", node="b"), []),
        (affinity("10.1.0.0/26", state="pending"), []),
        (affinity("10.1.0.0/26", state="pendingDeletion"), []),
        (affinity("10.1.0.0/26", deleted=True), []),
        (affinity("10.1.0.0/26", type="virtual"), []),
        (affinity("10.2.0.0/26"), []),
        (affinity("10.3.0.0/26"), ["10.3.0.0/26"]),
        (affinity("10.9.0.0/26"), ["10.9.0.0/26"]),
    ],
)
def test_a_confirmed_block_of_this_node_is_told(block: BlockAffinity, expected: list[str]) -> None:
    """Also one whose pool is disabled or gone: what was given out stays routed (the export filter's step 7)."""
    assert told([block], [], OLD) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.0.5", []),
        ("10.1.0.64", ["10.1.0.64/32"]),
        ("10.2.0.1", []),
        ("10.3.0.1", []),
        ("192.0.2.1", []),
    ],
)
def test_an_endpoint_outside_own_blocks_is_told_where_a_pool_stands_for_it(address: str, expected: list[str]) -> None:
    assert told([affinity("10.1.0.0/26")], [address], OLD) == ["10.1.0.0/26", *expected]


def test_a_block_that_is_leaving_still_has_its_endpoints_told() -> None:
    leaving = affinity("10.1.0.0/26", state="pendingDeletion")
    assert told([leaving], ["10.1.0.5", "10.1.0.5"]) == ["10.1.0.5/32"]


def test_each_session_hears_of_its_own_family_with_its_own_next_hop() -> None:
    blocks = [affinity("fd10::/122"), affinity("10.1.0.0/26")]
    assert compute("a", TOPOLOGY, blocks, POOLS, ["fd10::1:1"], []) == {
        "v4": (Announcement(prefix="10.1.0.0/26", next_hop="10.0.0.1"),),
        "v6": (
            Announcement(prefix="fd10::/122", next_hop="fd00::1"),
            Announcement(prefix="fd10::1:1/128", next_hop="fd00::1"),
        ),
    }


def test_preference_is_the_metrics_complement() -> None:
    def preferences(*configurations: BGPConfiguration) -> set[int]:
        blocks = [affinity("fd10::/122"), affinity("10.1.0.0/26")]
        found = compute("a", TOPOLOGY, blocks, POOLS, [], configurations)
        return {announcement.local_preference for some in found.values() for announcement in some}

    assert preferences() == {2147482623}
    assert preferences(configuration(ipv4_normal_route_priority=1, ipv6_normal_route_priority=7)) == {
        2147483646,
        2147483640,
    }


@pytest.mark.parametrize(
    ("configurations", "expected"),
    [
        ([], ()),
        ([("default", "10.1.0.0/16", ("65000:1", "big", "65000:1:2"))], ("64512:7", "65000:1", "65000:1:2")),
        ([("default", "10.1.0.0/27", ("65000:1",))], ()),
        ([("default", "10.1.0.0/26", ("nobody",))], ()),
        ([("default", "10.1.0.0/16", ("65000:1",)), ("node.a", "10.0.0.0/8", ("65000:2",))], ("65000:2",)),
        ([("default", "10.1.0.0/16", ("65000:1",)), ("node.b", "10.0.0.0/8", ("65000:2",))], ("65000:1",)),
    ],
)
def test_communities_come_from_the_advertisement_around_a_prefix(
    configurations: list[tuple[str, str, tuple[str, ...]]], expected: tuple[str, ...]
) -> None:
    objects = [
        configuration(
            name,
            communities=(Community(name="big", value="64512:7"),),
            prefix_advertisements=(PrefixAdvertisement(cidr=cidr, communities=communities),),
        )
        for name, cidr, communities in configurations
    ]
    (announcement,) = compute("a", TOPOLOGY, [affinity("10.1.0.0/26")], POOLS, [], objects)["v4"]
    assert announcement.communities == expected
