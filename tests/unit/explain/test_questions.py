"""Questions about connections: who is meant, both answers on the table of cases, the nearest rule, the way."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from msgspec import structs

from calipy.explain import answers as module
from calipy.explain.answers import Answer, answers
from calipy.explain.inhabitants import World
from calipy.explain.questions import Ends, Transport, Unaskable, families, question
from calipy.explain.reference import evaluate
from calipy.explain.verdicts import Packet, Verdict
from calipy.felix.calc.change import NodeState
from calipy.felix.objects import Objects
from calipy.felix.rules import policies
from calipy.model.policies import Policy
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Key, ObjectMeta, Resource
from calipy.resources.pods import Pod, PodStatus
from calipy.resources.policy_rules import PROTOCOL_NUMBERS
from calipy.resources.services import Service, ServiceSpec
from tests.cases.loading import FOLDER, Case, Row, cases, kind_of, load

_TRANSPORTS: dict[int, Transport] = {PROTOCOL_NUMBERS[name]: name for name in ("TCP", "UDP", "SCTP")}
_ECHO = {(1, 8, 0), (58, 128, 0)}


def ask(
    world: World, source: str, destination: str, protocol: Transport = "TCP", port: str = "", **more: int
) -> Answer:
    """The answer in the first family that both have."""
    ends = Ends(world)
    one, other = ends.named(source, "x"), ends.named(destination, "x")
    asked = question(ends, one, other, protocol, port, **more)
    return answers(world, ends, asked, families(one, other, "both"))[0]


def of_packet(world: World, packet: Packet) -> Answer | None:
    """The answer for a packet that a question can be about."""
    if (packet.protocol, packet.icmp_type, packet.icmp_code) in _ECHO:
        return ask(world, packet.source, packet.destination, "ICMP")
    if packet.protocol not in _TRANSPORTS or not packet.destination_port:
        return None
    port, source_port = str(packet.destination_port), packet.source_port
    protocol = _TRANSPORTS[packet.protocol]
    return ask(world, packet.source, packet.destination, protocol, port, source_port=source_port)


_ANSWERED: dict[str, list[tuple[Row, Answer]]] = {}


def answered(case: Case) -> list[tuple[Row, Answer]]:
    """Each row that is a question, with its answer: asked once for all tests."""
    if case.name not in _ANSWERED:
        asked = ((row, of_packet(scene.world, row.packet)) for scene in case.scenes for row in scene.rows)
        _ANSWERED[case.name] = [(row, answer) for row, answer in asked if answer is not None]
    return _ANSWERED[case.name]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_both_answers_agree_on_each_row(case: Case) -> None:
    for row, answer in answered(case):
        assert answer.agreed, row
        assert answer.allowed == answer.rules.allowed == answer.specification.allowed == row.allowed, row


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_rule_that_decides_is_shown_as_it_stands_and_the_end_of_a_tier_with_its_policies(case: Case) -> None:
    for row, answer in answered(case):
        for said in (answer.specification.egress, answer.specification.ingress):
            if said is not None and said.tier:
                assert bool(said.policy) == (said.text is not None) != bool(said.governing), row


@pytest.fixture
def tiers() -> World:
    return load(FOLDER / "tier_order.yaml").scenes[1].world


def test_the_nearest_rule_has_the_fewest_unmet_conditions(tiers: World) -> None:
    answer = ask(tiers, "c", "a", "TCP", "80")
    assert (answer.allowed, answer.specification.ingress) == (False, answer.rules.ingress)
    # Security's rule for 443 and platform's for 22, one port each; its rule for x/b is a Pass and would allow nothing.
    assert [(near.policy, near.rule, near.unmet) for near in answer.nearest] == [
        ("gnp/security.guard", 1, ("destination.ports",)),
        ("np/x/platform.web", 0, ("destination.ports",)),
    ]
    assert [near.text.destination.ports for near in answer.nearest] == [(443,), (22,)]


def test_of_what_is_allowed_nothing_is_near(tiers: World) -> None:
    assert ask(tiers, "b", "a", "TCP", "443").nearest == ()


def test_a_rule_behind_the_one_that_denies_is_not_near() -> None:
    world = load(FOLDER / "rule_order.yaml").scenes[0].world
    near, far = (ask(world, "y/b", "a", "TCP", port) for port in ("80", "82"))
    assert (near.specification.ingress and near.specification.ingress.rule, near.nearest) == (1, ())
    assert [each.rule for each in far.nearest] == [3]


def test_answers_that_differ_are_seen(tiers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(world: World, packet: Packet) -> Verdict:
        return evaluate({key: value for key, value in world.items() if key.kind != "Tier"}, packet)

    monkeypatch.setattr(module, "evaluate", forgetful)
    answer = ask(tiers, "b", "a", "TCP", "22")
    assert (answer.agreed, answer.allowed) == (False, False)
    # The same verdict for another reason is a difference too.
    answer = ask(tiers, "b", "a", "UDP", "53")
    assert (answer.specification.allowed, answer.rules.allowed, answer.agreed) == (False, False, False)


def test_rules_that_no_kernel_would_take_are_a_difference(tiers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "steps", nothing)
    answer = ask(tiers, "b", "a", "TCP", "22")
    assert not answer.agreed
    assert answer.rules.ingress is not None
    assert answer.rules.ingress.reason.startswith("no kernel would take node n1's rules: chain cali-pi-")


def nothing(policy: Policy, state: NodeState) -> policies.Steps[Objects]:
    """A compiler that has forgotten the policy's chains."""
    yield
    return {}


# --- the way ---


def routed(mode: Literal["Never", "Always", "CrossSubnet"]) -> dict[Key, Resource]:
    """Two pods of different nodes, in blocks of a pool of this VXLAN mode."""
    world = dict(load(FOLDER / "k8s_default_deny.yaml").scenes[0].world)
    spec = IPPoolSpec(cidr="10.244.0.0/16", block_size=26, vxlan_mode=mode)
    for value in (
        IPPool(metadata=ObjectMeta(name="pool"), spec=spec),
        *(claim(f"10.244.{number}.0/26", f"n{number}") for number in (1, 2)),
    ):
        world[kind_of(value).key(value)] = value
    return world


def claim(cidr: str, node: str) -> BlockAffinity:
    name = f"{node}-{cidr.translate(str.maketrans('./', '--'))}"
    spec = BlockAffinitySpec(cidr=cidr, node=node, state="confirmed")
    return BlockAffinity(metadata=ObjectMeta(name=name), spec=spec)


ONE, TWO = "10.244.1.1", "10.244.2.1"


@pytest.mark.parametrize(
    ("mode", "source", "destination", "means"),
    [
        ("Never", ONE, TWO, "BGP"),
        ("Always", ONE, TWO, "VXLAN"),
        ("CrossSubnet", ONE, TWO, "same subnet"),
        ("Never", ONE, "10.244.1.2", "same node"),
        ("Never", ONE, "node/n1", "same node"),
        ("Always", ONE, "node/n2", "network"),
        ("Never", ONE, "192.0.2.1", "network"),
        ("Never", "192.0.2.1", TWO, "network"),
        ("Always", ONE, "10.244.2.60", "dropped"),
        ("Never", "192.0.2.1", "192.0.2.2", "nowhere"),
    ],
)
def test_the_way_is_that_of_the_blocks(mode: Any, source: str, destination: str, means: str) -> None:
    answer = ask(routed(mode), source, destination, "TCP", "80")
    assert answer.way.means == means
    assert answer.agreed


def test_an_address_in_another_node_s_block_is_borrowed() -> None:
    world = routed("Never") | {Key("BlockAffinity", "n2-10-244-2-0-26"): claim("10.244.2.0/26", "n1")}
    way = ask(world, ONE, TWO, "TCP", "80").way
    assert (way.destination_node, way.holder, way.borrowed) == ("n2", "n1", True)


@pytest.mark.parametrize(("mode", "source"), [("Never", "10.9.0.1"), ("Always", "10.244.1.0")])
def test_what_a_node_sends_through_its_tunnel_comes_from_the_tunnel_s_address(mode: Any, source: str) -> None:
    assert ask(routed(mode), "node/n1", TWO, "TCP", "80").source == source


@pytest.mark.parametrize("outgoing", [True, False])
def test_where_the_source_address_is_hidden(outgoing: bool) -> None:
    world = routed("Never")
    pool = world[Key("IPPool", "pool")]
    assert isinstance(pool, IPPool)
    spec = structs.replace(pool.spec, nat_outgoing=outgoing)
    world[Key("IPPool", "pool")] = structs.replace(pool, spec=spec)
    assert ask(world, ONE, "192.0.2.1", "TCP", "80").source_hidden == outgoing
    assert not ask(world, ONE, TWO, "TCP", "80").source_hidden


# --- who is meant ---


@pytest.fixture
def world() -> dict[Key, Resource]:
    """Pods of x with named ports."""
    return dict(load(FOLDER / "k8s_named_ports.yaml").scenes[0].world)


def test_a_port_s_name_is_what_the_destination_calls_so(world: World) -> None:
    ends = Ends(world)
    for pod, protocol, name, number in (
        ("one", "TCP", "http", 80), ("x/two", "TCP", "http", 8080), ("first", "TCP", "http", 9090),
        ("one", "UDP", "dns", 53),
    ):  # fmt: skip
        assert ends.port(ends.named(pod, "x"), name, protocol) == number  # type: ignore[arg-type]


def test_an_address_is_whoever_has_it(world: World) -> None:
    ends = Ends(world)
    pod = ends.named("one", "x")
    assert ends.named(pod.addresses[4], "y").name == "x/one"
    assert ends.named(pod.addresses[6].upper(), "y").node == "n1"
    assert ends.named("10.244.1.0", "y").name == ends.named("10.9.0.1", "y").name == "node/n1"
    assert (ends.named("192.0.2.1", "y").kind, ends.named("192.0.2.1", "y").node) == ("address", "")


def test_a_pod_on_its_host_s_network_is_the_host() -> None:
    world = load(FOLDER / "k8s_host_network.yaml").scenes[0].world
    answer = ask(world, "b", "agent", "TCP", "80")
    assert (answer.destination, answer.way.destination_node) == ("10.9.0.1", "n1")
    assert answer.rules.ingress is not None
    assert answer.rules.ingress.reason == "not governed"


def test_what_can_not_be_asked_is_said_with_reason_and_remedy(world: dict[Key, Resource]) -> None:
    finished = load(FOLDER / "finished_pods.yaml")
    for scene in finished.scenes:
        world.update((key, value) for key, value in scene.world.items() if key == Key("Pod", "job", "x"))
    web = Service(metadata=ObjectMeta(name="web", namespace="x"), spec=ServiceSpec(cluster_ip="10.96.0.1"))
    world[Key("Service", "web", "x")] = web
    for key, node in (("new", ""), ("waiting", "n1")):
        pod = world[Key("Pod", "one", "x")]
        assert isinstance(pod, Pod)
        metadata = structs.replace(pod.metadata, name=key)
        spec = structs.replace(pod.spec, node_name=node)
        world[Key("Pod", key, "x")] = Pod(metadata=metadata, spec=spec, status=PodStatus(phase="Pending"))
    for source, destination, protocol, port, problem in (
        ("nobody", "one", "TCP", "80", "pod x/nobody: does not exist; namespace x has first, job, new, "),
        ("z/web", "one", "TCP", "80", "pod z/web: does not exist; namespace z has no pods; or name"),
        ("a/b/c", "one", "TCP", "80", "'a/b/c': is nobody's name; write NAMESPACE/POD, node/NODE or an address"),
        ("node/n9", "one", "TCP", "80", "node 'n9': does not exist; known are n1, n2"),
        ("job", "one", "TCP", "80", "pod x/job: has finished (phase Failed): its addresses are no longer its own;"),
        ("one", "new", "TCP", "80", "pod x/new: has no node yet (phase Pending); wait until it runs"),
        ("one", "waiting", "TCP", "80", "pod x/waiting: has no address yet (phase Pending); wait"),
        ("one", "10.96.0.1", "TCP", "80", "10.96.0.1: is an address of Service x/web, which leads to its endpoints;"),
        ("one", "two", "TCP", "https", "port 'https': pod x/two has no TCP port of that name; it names http (TCP/8080"),
        ("one", "two", "UDP", "http", "port 'http': pod x/two has no UDP port of that name; it names"),
        ("one", "two", "TCP", "65536", "port '65536': is none; write 1 to 65535, or a port's name"),
        ("one", "node/n2", "TCP", "ssh", "port 'ssh': is a name, but node/n2 is no pod; write the port's number"),
        ("one", "two", "TCP", "", "protocol TCP: wants the port of the destination; name it: --port 80"),
        ("one", "two", "ICMP", "80", "protocol ICMP: has no ports; leave the port out"),
        ("192.0.2.1", "2001:db8::1", "TCP", "80", "192.0.2.1 and 2001:db8::1: have no family in common; name"),
    ):  # fmt: skip
        with pytest.raises(Unaskable, match="^" + re.escape(problem)):
            ask(world, source, destination, protocol, port)  # type: ignore[arg-type]


def test_a_family_that_an_end_has_not_is_said(world: World) -> None:
    ends = Ends(world)
    one, other = ends.named("one", "x"), ends.named("192.0.2.1", "x")
    assert families(one, ends.named("two", "x"), "both") == (4, 6)
    assert families(one, other, "both") == (4,)
    with pytest.raises(
        Unaskable, match=r"^192\.0\.2\.1: has IPv4 alone, not IPv6; ask for that family, or for another"
    ):
        families(one, other, "6")
