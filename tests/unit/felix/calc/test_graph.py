"""The incremental graph against the whole calculation, over worlds and orders that hypothesis makes up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.calc import tunnels
from calipy.felix.calc.change import NodeState, apply
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.whole import compute
from calipy.felix.calc.world import (
    AddressGone,
    AddressSeen,
    Attached,
    Bookmark,
    Detached,
    Event,
    ForeignRoutesRead,
    LinkGone,
    LinkSeen,
    ResourceGone,
    ResourcePut,
    RoutesLearned,
    World,
    advance,
)
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import ForeignRoute, Link, LinkAddress
from calipy.model.routes import LearnedRoute
from calipy.resources import nodes, pods
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Key, ObjectMeta
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod, PodSpec
from tests.effort import examples
from tests.unit.felix.calc.stories import flush, told
from tests.unit.felix.calc.worlds import ME, put

OTHERS = ("n2", "n3")
BLOCKS = ("10.244.0.0/26", "10.244.0.64/26", "10.244.1.0/26", "fd00:10::/122")
POD_ADDRESSES = ("10.244.0.1", "10.244.0.65", "10.244.1.1", "fd00:10::1")


def _nodes() -> Iterator[Event]:
    addresses = ("10.9.0.1/24", "10.9.0.2/24", "10.9.1.3/24", "junk")
    for name in (ME, *OTHERS):
        yield ResourceGone(Key("Node", name), 2)
        for ip, tunnel, ip6 in product(addresses, ("", "10.244.0.9", "10.244.1.9"), ("", "fd00:9::1/64")):
            notes = {nodes.IPV4_ADDRESS: ip, nodes.VXLAN_ADDRESS: tunnel, nodes.IPV6_ADDRESS: ip6}
            notes[nodes.VXLAN_V6_ADDRESS] = "fd00:10::9" if ip6 and tunnel else ""
            labels = {"rack": "1"} if tunnel else {}
            yield put(
                Node(metadata=ObjectMeta(name=name, annotations={k: v for k, v in notes.items() if v}, labels=labels))
            )


def _pools() -> Iterator[Event]:
    for name, cidr in (("a", "10.244.0.0/16"), ("b", "10.244.1.0/24"), ("six", "fd00:10::/64")):
        yield ResourceGone(Key("IPPool", name), 2)
        for mode, nat in product(("Never", "Always", "CrossSubnet"), (False, True)):
            spec = IPPoolSpec(cidr=cidr, vxlan_mode=mode, nat_outgoing=nat)
            yield put(IPPool(metadata=ObjectMeta(name=name), spec=spec))


def _affinities() -> Iterator[Event]:
    for node, cidr in product((ME, *OTHERS), BLOCKS):
        name = f"{node}-{cidr}".replace("/", "-").replace(":", "-")
        yield ResourceGone(Key("BlockAffinity", name), 2)
        for state in ("pending", "confirmed", "confirmed", "pendingDeletion", ""):
            spec = BlockAffinitySpec(cidr=cidr, node=node, state=state)
            yield put(BlockAffinity(metadata=ObjectMeta(name=name), spec=spec))


def _pods() -> Iterator[Event]:
    for name in "pqr":
        yield ResourceGone(Key("Pod", name, "default"), 2)
        for address, labels, node in product(("", *POD_ADDRESSES), ({}, {"app": "web"}), ("", ME, *OTHERS)):
            notes = {pods.POD_IPS: f"{address}/32" if address else ""}
            metadata = ObjectMeta(name=name, namespace="default", annotations=notes, labels=labels)
            yield put(Pod(metadata=metadata, spec=PodSpec(node_name=node)))


def _attachments() -> Iterator[Event]:
    for name in "pqr":
        id_ = EndpointId("k8s", f"default/{name}", "eth0")
        pairs = [(address,) for address in POD_ADDRESSES] + list(permutations(POD_ADDRESSES, 2))
        for addresses in pairs:
            yield Attached(
                WorkloadEndpoint(
                    id=id_,
                    container_id="c",
                    interface=f"cali{name}",
                    addresses=addresses,
                    namespace="default",
                    pod=name,
                )
            )
        yield from [Detached(id_)] * (len(pairs) // 2)


def _facts() -> Iterator[Event]:
    for index, name in ((1, "eth0"), (2, "calip"), (3, "vxlan.calico"), (4, "caliq"), (4, "eth1")):
        yield LinkGone(index)
        for up, mtu in product((True, False), (1500, 9000)):
            yield LinkSeen(Link(index=index, name=name, up=up, mtu=mtu))
        for text in ("10.9.0.1", "10.9.1.3", "fd00:9::1"):
            address = LinkAddress(index, text, 24)
            yield from (AddressSeen(address), AddressGone(address))
    routes = (
        ForeignRoute(prefix="10.9.0.0/24", metric=0, next_hops=((None, 1),)),
        ForeignRoute(prefix="0.0.0.0/0", metric=0, next_hops=(("10.9.0.254", 1),)),
        ForeignRoute(prefix="10.9.1.0/24", metric=0, next_hops=(("10.9.0.253", 4),)),
    )
    for chosen in product((True, False), repeat=3):
        yield ForeignRoutesRead(frozenset(route for route, wanted in zip(routes, chosen, strict=True) if wanted))


def _learned() -> Iterator[Event]:
    ways = ((), ("10.9.0.2",), ("10.9.1.3",), ("10.9.0.2", "10.9.1.3"))
    for prefix in (*BLOCKS, "10.244.0.1/32", "192.0.2.0/24"):
        yield from [RoutesLearned({prefix: None})] * 4
        for hops, metric in product(ways, (1024, 512)):
            route = LearnedRoute(prefix=prefix, next_hops=hops, peers=("10.9.0.2",), metric=metric)
            yield RoutesLearned({prefix: route})


def _settings() -> Iterator[Event]:
    specs: list[dict[str, object]] = [
        {}, {"vxlanPort": 9}, {"ipv6Support": False}, {"interfacePrefix": "eth"}, {"externalNodesList": ["10.0.0.0/8"]},
        {"programClusterRoutes": "Enabled"}, {"vxlanEnabled": False}, {"ipv4NormalRoutePriority": 7},
    ]  # fmt: skip
    for name, selector in (("default", {}), (f"node.{ME}", {}), ("racks", {"nodeSelector": "has(rack)"})):
        yield ResourceGone(Key("FelixConfiguration", name), 2)
        for spec in specs:
            yield put(FelixConfiguration(metadata=ObjectMeta(name=name), spec={**spec, **selector}))


KINDS = tuple(tuple(make()) for make in (_nodes, _pools, _affinities, _pods, _attachments, _facts, _learned, _settings))
"""All that can happen in these small worlds, by kind: drawn from ready-made lists, for that is quick."""
events = st.one_of(*(st.sampled_from(kind) for kind in KINDS), st.just(Bookmark("Pod", 9)))


def _standing() -> Iterator[Event]:
    """A cluster at work: most changes mean something only in one."""
    for name, ip, tunnel in (
        (ME, "10.9.0.1/24", "10.244.0.9"),
        ("n2", "10.9.0.2/24", "10.244.1.9"),
        ("n3", "10.9.1.3/24", ""),
    ):
        notes = {nodes.IPV4_ADDRESS: ip, **({nodes.VXLAN_ADDRESS: tunnel} if tunnel else {})}
        yield put(Node(metadata=ObjectMeta(name=name, annotations=notes)))
    spec = IPPoolSpec(cidr="10.244.0.0/16", vxlan_mode="CrossSubnet", nat_outgoing=True)
    yield put(IPPool(metadata=ObjectMeta(name="a"), spec=spec))
    for node, cidr in ((ME, BLOCKS[0]), ("n2", BLOCKS[1]), ("n3", BLOCKS[2])):
        name = f"{node}-{cidr}".replace("/", "-")
        claim = BlockAffinitySpec(cidr=cidr, node=node, state="confirmed")
        yield put(BlockAffinity(metadata=ObjectMeta(name=name), spec=claim))
    borrower = ObjectMeta(name="p", namespace="default", annotations={pods.POD_IPS: f"{POD_ADDRESSES[2]}/32"})
    yield put(Pod(metadata=borrower, spec=PodSpec(node_name="n2")))
    for index, name in ((1, "eth0"), (3, "vxlan.calico")):
        yield LinkSeen(Link(index=index, name=name, up=True, mtu=1500))
    yield AddressSeen(LinkAddress(1, "10.9.0.1", 24))
    connected = ForeignRoute(prefix="10.9.0.0/24", metric=0, next_hops=((None, 1),))
    yield ForeignRoutesRead(frozenset({connected}))


_batches = st.lists(st.lists(events, max_size=6), max_size=6)
stories = st.one_of(_batches, _batches.map(lambda batches: [list(_standing()), *batches]))


@examples(400)
@given(stories)
def test_steps_lead_where_the_whole_calculation_says(story: list[list[Event]]) -> None:
    graph, state, merged = told(story)
    expected = compute(advance(World(node=ME), [event for batch in story for event in batch]))
    assert state == expected
    assert graph.state() == expected
    assert apply(NodeState(settings=FelixSettings()), merged) == expected


@examples(100)
@given(stories)
def test_the_cadence_of_flushes_does_not_matter(story: list[list[Event]]) -> None:
    flat = [event for batch in story for event in batch]
    _, one_by_one, _ = told([[event] for event in flat])
    _, at_once, _ = told([flat])
    assert one_by_one == at_once


@examples(100)
@given(stories)
def test_saying_it_twice_changes_nothing(story: list[list[Event]]) -> None:
    graph, state, _ = told(story)
    last = advance(World(node=ME), [event for batch in story for event in batch])
    graph.update([ResourcePut(key, value, 3) for key, value in last.resources.items()])
    graph.update([Attached(endpoint) for endpoint in last.attachments.values()])
    graph.update([LinkSeen(link) for link in last.links.values()])
    assert not flush(graph)
    assert graph.state() == state


@examples(100)
@given(stories, st.randoms(use_true_random=False))
def test_the_order_of_news_does_not_matter(story: list[list[Event]], random: Random) -> None:
    """What is true in the end, told in any order, leads to the same as the story did."""
    world = advance(World(node=ME), [event for batch in story for event in batch])
    news: list[Event] = [
        *(ResourcePut(key, value, 3) for key, value in world.resources.items()),
        *map(Attached, world.attachments.values()),
        *map(LinkSeen, world.links.values()),
        *map(AddressSeen, world.addresses),
        ForeignRoutesRead(world.foreign_routes),
        RoutesLearned(world.learned),
    ]
    random.shuffle(news)
    half = len(news) // 2
    _, state, _ = told([news[:half], news[half:]])
    assert state == compute(world)


def test_a_new_pod_moves_its_own_endpoint_and_routes_only() -> None:
    others = [
        Attached(
            WorkloadEndpoint(
                id=EndpointId("k8s", f"default/p{n}", "eth0"),
                container_id=str(n),
                interface=f"cali{n}",
                addresses=(f"10.244.0.{n}",),
                namespace="default",
                pod=f"p{n}",
            )
        )
        for n in range(1, 50)
    ]
    graph, _, _ = told([others])
    graph.update([others[0], LinkSeen(Link(index=7, name="cali1", up=True))])
    change = flush(graph)
    assert [key.prefix for key in change.routes] == ["10.244.0.1/32"]
    assert not change.endpoints
    assert not change.members
    assert change.settings is None


def test_a_block_that_changes_hands_moves_the_borrowed_pods_in_it() -> None:
    standing = list(_standing())
    _, state, _ = told([standing])
    borrowed = next(route for route in state.routes.values() if route.prefix == f"{POD_ADDRESSES[2]}/32")
    assert borrowed.origin.name == "n2"
    spec = BlockAffinitySpec(cidr=BLOCKS[2], node="n2", state="confirmed")
    news = put(BlockAffinity(metadata=ObjectMeta(name="n2-block"), spec=spec))
    _, state, _ = told([standing, [news]])
    assert state == compute(advance(World(node=ME), [*standing, news]))
    assert f"{POD_ADDRESSES[2]}/32" not in {route.prefix for route in state.routes.values()}


def test_the_nodes_address_on_a_link_with_a_workloads_name_is_a_tunnels_parent_when_the_link_appears() -> None:
    notes = {nodes.IPV4_ADDRESS: "10.9.1.3/24", nodes.VXLAN_ADDRESS: "10.244.0.9"}
    story: list[list[Event]] = [
        [
            put(Node(metadata=ObjectMeta(name=ME, annotations=notes))),
            put(IPPool(metadata=ObjectMeta(name="a"), spec=IPPoolSpec(cidr="10.244.0.0/16", vxlan_mode="Always"))),
            AddressSeen(LinkAddress(2, "10.9.1.3", 24)),
        ],
        [LinkSeen(Link(index=2, name="calip", up=True, mtu=1500))],
    ]
    graph, state, _ = told(story)
    assert state == graph.state() == compute(advance(World(node=ME), [event for batch in story for event in batch]))
    assert state.tunnels["vxlan.calico"].parent == "calip"


@pytest.mark.parametrize("order", [(2, 5), (5, 2)])
def test_of_two_links_with_the_nodes_address_the_first_is_the_tunnels_parent(order: tuple[int, int]) -> None:
    notes = {nodes.IPV4_ADDRESS: "10.9.1.3/24", nodes.VXLAN_ADDRESS: "10.244.0.9"}
    story: list[Event] = [
        put(Node(metadata=ObjectMeta(name=ME, annotations=notes))),
        put(IPPool(metadata=ObjectMeta(name="a"), spec=IPPoolSpec(cidr="10.244.0.0/16", vxlan_mode="Always"))),
    ]
    for number in order:
        story += [LinkSeen(Link(index=number, name=f"eth{number}")), AddressSeen(LinkAddress(number, "10.9.1.3", 24))]
    _, state, _ = told([story])
    assert state == compute(advance(World(node=ME), story))
    assert state.tunnels["vxlan.calico"].parent == "eth2"


def test_a_pods_link_and_its_addresses_are_no_reason_to_look_at_tunnels(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = {nodes.IPV4_ADDRESS: "10.9.1.3/24", nodes.VXLAN_ADDRESS: "10.244.0.9"}
    graph, state, _ = told(
        [
            [
                put(Node(metadata=ObjectMeta(name=ME, annotations=notes))),
                put(IPPool(metadata=ObjectMeta(name="a"), spec=IPPoolSpec(cidr="10.244.0.0/16", vxlan_mode="Always"))),
                LinkSeen(Link(index=2, name="eth0", up=True, mtu=1500)),
                AddressSeen(LinkAddress(2, "10.9.1.3", 24)),
            ]
        ]
    )
    assert state.tunnels["vxlan.calico"].parent == "eth0"
    monkeypatch.setattr(tunnels, "tunnel", forbidden)
    graph.update([LinkSeen(Link(index=3, name="cali1")), AddressSeen(LinkAddress(3, "fe80::ecee:eeff:feee:eeee", 128))])
    graph.update([LinkSeen(Link(index=3, name="cali1", up=True)), AddressGone(LinkAddress(3, "10.244.0.9", 32))])
    graph.update([LinkGone(3)])
    assert not flush(graph)
    graph.update([AddressGone(LinkAddress(2, "10.9.1.3", 24))])
    with pytest.raises(AssertionError, match="looked at"):
        flush(graph)


def forbidden(*_: object) -> None:
    raise AssertionError("looked at")
