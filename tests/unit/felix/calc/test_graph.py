"""The incremental graph against the whole calculation, over worlds and orders that hypothesis makes up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from calipy.felix.calc.change import Change, NodeState, apply, merge
from calipy.felix.calc.graph import Graph
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
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Key, ObjectMeta, Resource
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod, PodSpec

ME, OTHERS = "n1", ("n2", "n3")
BLOCKS = ("10.244.0.0/26", "10.244.0.64/26", "10.244.1.0/26", "fd00:10::/122")
POD_ADDRESSES = ("10.244.0.1", "10.244.0.65", "10.244.1.1", "fd00:10::1")


def put(value: Resource) -> ResourcePut:
    key = Key(type(value).__name__, value.metadata.name, value.metadata.namespace)
    return ResourcePut(key, value, 1)


@st.composite
def node_events(draw: st.DrawFn) -> Event:
    name = draw(st.sampled_from((ME, *OTHERS)))
    if draw(st.booleans()) and draw(st.booleans()):
        return ResourceGone(Key("Node", name), 2)
    notes = {nodes.IPV4_ADDRESS: draw(st.sampled_from(["10.9.0.1/24", "10.9.0.2/24", "10.9.1.3/24", "junk"]))}
    if draw(st.booleans()):
        notes[nodes.VXLAN_ADDRESS] = draw(st.sampled_from(["10.244.0.9", "10.244.1.9"]))
    return put(Node(metadata=ObjectMeta(name=name, annotations=notes)))


@st.composite
def pool_events(draw: st.DrawFn) -> Event:
    name = draw(st.sampled_from(["a", "b", "six"]))
    if draw(st.integers(0, 4)) == 0:
        return ResourceGone(Key("IPPool", name), 2)
    cidr = {"a": "10.244.0.0/16", "b": "10.244.1.0/24", "six": "fd00:10::/64"}[name]
    spec = IPPoolSpec(
        cidr=cidr,
        vxlan_mode=draw(st.sampled_from(["Never", "Always", "CrossSubnet"])),
        nat_outgoing=draw(st.booleans()),
    )
    return put(IPPool(metadata=ObjectMeta(name=name), spec=spec))


@st.composite
def affinity_events(draw: st.DrawFn) -> Event:
    node, cidr = draw(st.sampled_from((ME, *OTHERS))), draw(st.sampled_from(BLOCKS))
    name = f"{node}-{cidr}".replace("/", "-").replace(":", "-")
    if draw(st.integers(0, 3)) == 0:
        return ResourceGone(Key("BlockAffinity", name), 2)
    state = draw(st.sampled_from(["pending", "confirmed", "pendingDeletion", ""]))
    spec = BlockAffinitySpec(cidr=cidr, node=node, state=state)
    return put(BlockAffinity(metadata=ObjectMeta(name=name), spec=spec))


@st.composite
def pod_events(draw: st.DrawFn) -> Event:
    name = draw(st.sampled_from("pqr"))
    if draw(st.integers(0, 3)) == 0:
        return ResourceGone(Key("Pod", name, "default"), 2)
    notes = {pods.POD_IPS: draw(st.sampled_from(["", *(f"{a}/32" for a in POD_ADDRESSES)]))}
    labels = draw(st.sampled_from([{}, {"app": "web"}]))
    metadata = ObjectMeta(name=name, namespace="default", annotations=notes, labels=labels)
    return put(Pod(metadata=metadata, spec=PodSpec(node_name=draw(st.sampled_from(("", ME, *OTHERS))))))


@st.composite
def attachment_events(draw: st.DrawFn) -> Event:
    name = draw(st.sampled_from("pqr"))
    id_ = EndpointId("k8s", f"default/{name}", "eth0")
    if draw(st.integers(0, 2)) == 0:
        return Detached(id_)
    addresses = tuple(draw(st.lists(st.sampled_from(POD_ADDRESSES), min_size=1, max_size=2, unique=True)))
    return Attached(
        WorkloadEndpoint(
            id=id_, container_id="c", interface=f"cali{name}", addresses=addresses, namespace="default", pod=name
        )
    )


@st.composite
def fact_events(draw: st.DrawFn) -> Event:
    index = draw(st.integers(1, 4))
    name = {1: "eth0", 2: "calip", 3: "vxlan.calico", 4: draw(st.sampled_from(["caliq", "eth1"]))}[index]
    address = LinkAddress(index, draw(st.sampled_from(["10.9.0.1", "10.9.1.3"])), 24)
    routes = draw(
        st.frozensets(
            st.sampled_from(
                [
                    ForeignRoute(prefix="10.9.0.0/24", metric=0, next_hops=((None, 1),)),
                    ForeignRoute(prefix="0.0.0.0/0", metric=0, next_hops=(("10.9.0.254", 1),)),
                    ForeignRoute(prefix="10.9.1.0/24", metric=0, next_hops=(("10.9.0.253", 4),)),
                ]
            )
        )
    )
    link = Link(index=index, name=name, up=draw(st.booleans()), mtu=draw(st.sampled_from([1500, 9000])))
    return draw(
        st.sampled_from(
            [
                LinkSeen(link),
                LinkGone(index),
                AddressSeen(address),
                AddressGone(address),
                ForeignRoutesRead(routes),
            ]
        )
    )


@st.composite
def learned_events(draw: st.DrawFn) -> Event:
    prefix = draw(st.sampled_from((*BLOCKS, "10.244.0.1/32", "192.0.2.0/24")))
    hops = tuple(draw(st.lists(st.sampled_from(["10.9.0.2", "10.9.1.3"]), max_size=2, unique=True)))
    metric = draw(st.sampled_from([1024, 512]))
    route = LearnedRoute(prefix=prefix, next_hops=hops, peers=("10.9.0.2",), metric=metric)
    return RoutesLearned({prefix: draw(st.sampled_from([route, None]))})


events = st.one_of(
    node_events(),
    pool_events(),
    affinity_events(),
    pod_events(),
    attachment_events(),
    fact_events(),
    learned_events(),
    st.just(Bookmark("Pod", 9)),
)
stories = st.lists(st.lists(events, max_size=6), max_size=8)


def flush(graph: Graph) -> Change:
    pauses = graph.flush()
    while True:
        try:
            next(pauses)
        except StopIteration as end:
            return end.value


def told(batches: Iterable[Sequence[Event]]) -> tuple[Graph, NodeState, Change]:
    """The graph after a story, the state that its changes led to, and all of them merged."""
    graph = Graph(ME, {})
    state, merged = NodeState(settings=FelixSettings()), Change()
    for batch in ([], *batches):
        graph.update(batch)
        change = flush(graph)
        state, merged = apply(state, change), merge(merged, change)
    return graph, state, merged


@settings(max_examples=400, deadline=None)
@given(stories)
def test_steps_lead_where_the_whole_calculation_says(story: list[list[Event]]) -> None:
    graph, state, merged = told(story)
    expected = compute(advance(World(node=ME), [event for batch in story for event in batch]))
    assert state == expected
    assert graph.state() == expected
    assert apply(NodeState(settings=FelixSettings()), merged) == expected


@settings(max_examples=100, deadline=None)
@given(stories)
def test_the_cadence_of_flushes_does_not_matter(story: list[list[Event]]) -> None:
    flat = [event for batch in story for event in batch]
    _, one_by_one, _ = told([[event] for event in flat])
    _, at_once, _ = told([flat])
    assert one_by_one == at_once


@settings(max_examples=100, deadline=None)
@given(stories)
def test_saying_it_twice_changes_nothing(story: list[list[Event]]) -> None:
    graph, state, _ = told(story)
    last = advance(World(node=ME), [event for batch in story for event in batch])
    graph.update([ResourcePut(key, value, 3) for key, value in last.resources.items()])
    graph.update([Attached(endpoint) for endpoint in last.attachments.values()])
    graph.update([LinkSeen(link) for link in last.links.values()])
    assert not flush(graph)
    assert graph.state() == state


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
