"""Who peers with whom: Calico's rules on a cluster of three nodes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from calipy.bgp.peers import Peer, Topology
from calipy.bgp.topology import compute, hash_router_id
from calipy.model.nodes import NodeAddress
from calipy.resources.bgp_configurations import BGPConfiguration, BGPConfigurationSpec, CIDRBlock, NodeMeshPassword
from calipy.resources.bgp_peers import BGPPassword, BGPPeer, BGPPeerSpec
from calipy.resources.metadata import ObjectMeta
from calipy.resources.secrets import SecretKeySelector

Nodes = Mapping[str, NodeAddress]


def configuration(name: str = "default", **spec: object) -> BGPConfiguration:
    return BGPConfiguration(metadata=ObjectMeta(name=name), spec=BGPConfigurationSpec(**spec))  # type: ignore[arg-type]


NO_MESH = configuration(node_to_node_mesh_enabled=False)


def bgp_peer(name: str = "tor", **spec: object) -> BGPPeer:
    return BGPPeer(metadata=ObjectMeta(name=name), spec=BGPPeerSpec(**spec))  # type: ignore[arg-type]


def tor(name: str = "tor", **spec: object) -> BGPPeer:
    return bgp_peer(name, **{"peer_ip": "10.0.0.1", "as_number": 65001, **spec})


def names(topology: Topology) -> list[str]:
    return [peer.name for peer in topology.peers]


def only(topology: Topology) -> Peer:
    (peer,) = topology.peers
    return peer


def test_the_mesh_is_every_other_node_in_every_family(three: Nodes) -> None:
    assert names(compute("b", three, [], [])) == ["Mesh_10_0_0_11", "Mesh_10_0_0_9", "Mesh_fd00__9"]
    assert names(compute("c", three, [], [])) == ["Mesh_10_0_0_10", "Mesh_10_0_0_9"]


def test_of_two_nodes_the_one_with_the_lesser_text_waits(three: Nodes) -> None:
    passive = {
        (name, peer.node) for name in three for peer in compute(name, three, [], []).peers
        if peer.family == 4 and peer.passive
    }  # fmt: skip
    assert passive == {("b", "a"), ("b", "c"), ("c", "a")}


def test_a_mesh_session_has_calicos_settings(three: Nodes) -> None:
    secret = SecretKeySelector(name="bgp", key="mesh")
    settings = configuration(
        as_number=65000,
        node_mesh_password=NodeMeshPassword(secret_key_ref=secret),
        node_mesh_max_restart_time="90s",
        listen_port=1790,
    )
    nodes = {**three, "c": replace(three["c"], as_number=65003)}
    topology = compute("b", nodes, [settings, configuration("node.c", listen_port=178)], [], hold_time_s=9)
    assert topology.port == 1790
    assert topology.router_id == "10.0.0.10"
    assert topology.problems == ()
    assert topology.peers[0] == Peer(
        name="Mesh_10_0_0_11",
        address="10.0.0.11",
        as_number=65003,
        local_address="10.0.0.10",
        local_as=65000,
        port=178,
        passive=True,
        hold_time_s=9,
        restart_time_s=90,
        password=secret,
        node="c",
    )
    assert topology.peers[1].port == 1790
    assert compute("c", nodes, [settings, configuration("node.c", listen_port=178)], []).port == 178


@pytest.mark.parametrize("who", ["b", "c"])
def test_a_route_reflector_is_not_in_the_mesh(three: Nodes, who: str) -> None:
    nodes = {**three, "c": replace(three["c"], cluster_id="1.0.0.1")}
    assert {peer.node for peer in compute(who, nodes, [], []).peers} == ({"a"} if who == "b" else set())


def test_the_mesh_can_be_off(three: Nodes) -> None:
    assert names(compute("b", three, [NO_MESH], [])) == []


def test_a_node_that_nobody_knows_has_no_sessions(three: Nodes) -> None:
    assert compute("z", three, [], [tor()]).peers == ()


@pytest.mark.parametrize(
    ("spec", "who", "expected"),
    [
        ({}, "a", "Global_10_0_0_1"),
        ({"peer_ip": "10.0.0.1:1790"}, "a", "Global_10_0_0_1_port_1790"),
        ({"peer_ip": "[fd00::1]:179"}, "a", "Global_fd00__1"),
        ({"peer_ip": "FD00:0::1"}, "a", "Global_fd00__1"),
        ({"node": "a"}, "a", "Node_10_0_0_1"),
        ({"node": "b"}, "a", ""),
        ({"node_selector": "rack == '1'"}, "b", "Node_10_0_0_1"),
        ({"node_selector": "rack == '1'"}, "c", ""),
    ],
)
def test_a_peering_holds_on_the_nodes_that_it_names(
    three: Nodes, spec: dict[str, object], who: str, expected: str
) -> None:
    topology = compute(who, three, [NO_MESH], [tor(**spec)])
    assert names(topology) == ([expected] if expected else [])
    assert topology.problems == ()


def test_an_outside_peer_has_all_of_its_settings(three: Nodes) -> None:
    secret = SecretKeySelector(name="bgp", key="tor")
    peer = tor(
        peer_ip="10.0.0.1:1790",
        local_as_number=65099,
        password=BGPPassword(secret_key_ref=secret),
        keepalive_time="10s",
        max_restart_time="1m",
        ttl_security=1,
        next_hop_mode="Self",
        num_allowed_local_as_numbers=2,
        reachable_by="10.0.0.254",
    )
    assert only(compute("a", three, [NO_MESH], [peer])) == Peer(
        name="Global_10_0_0_1_port_1790",
        address="10.0.0.1",
        as_number=65001,
        local_address="10.0.0.9",
        local_as=65099,
        port=1790,
        hold_time_s=30,
        restart_time_s=60,
        ttl_security=1,
        password=secret,
        next_hop_mode="Self",
        reachable_by="10.0.0.254",
        own_as_allowed=2,
        kind="global",
    )


@pytest.mark.parametrize(
    ("keepalive", "hold"),
    [(None, 9), ("0s", 3), ("500ms", 3), ("1500ms", 6), ("2s", 6), ("24h", 65535)],
)
def test_hold_time_is_three_keepalives(three: Nodes, keepalive: str | None, hold: int) -> None:
    topology = compute("a", three, [NO_MESH], [tor(keepalive_time=keepalive)], hold_time_s=9)
    assert only(topology).hold_time_s == hold
    assert topology.problems == ()


REFLECTED = bgp_peer("rr", node_selector="!has(rr)", peer_selector="has(rr)")


def test_a_peer_selector_works_both_ways(three: Nodes) -> None:
    assert [(p.name, p.passive) for p in compute("a", three, [NO_MESH], [REFLECTED]).peers] == [
        ("Node_10_0_0_11", False)
    ]
    assert [(p.name, p.passive) for p in compute("c", three, [NO_MESH], [REFLECTED]).peers] == [
        ("Node_10_0_0_10", False),
        ("Node_10_0_0_9", True),
    ]


def test_reverse_peering_can_be_left_to_the_other_side(three: Nodes) -> None:
    manual = replace(REFLECTED, spec=replace(REFLECTED.spec, reverse_peering="Manual"))
    assert names(compute("a", three, [NO_MESH], [manual])) == ["Node_10_0_0_11"]
    assert names(compute("c", three, [NO_MESH], [manual])) == []


def test_a_nodes_own_address_as_peer_ip_is_peered_with_in_reverse(three: Nodes) -> None:
    peer = bgp_peer(node="a", peer_ip="10.0.0.11", as_number=64512)
    assert names(compute("a", three, [NO_MESH], [peer])) == ["Node_10_0_0_11"]
    reverse = only(compute("c", three, [NO_MESH], [peer]))
    assert (reverse.name, reverse.node, reverse.as_number) == ("Node_10_0_0_9", "a", 64512)
    elsewhere = bgp_peer(node="a", peer_ip="10.0.0.11", as_number=65001)
    assert names(compute("c", three, [NO_MESH], [elsewhere])) == []


def test_a_node_that_all_peer_with_doesnt_peer_with_itself(three: Nodes) -> None:
    hub = bgp_peer(peer_ip="10.0.0.11", as_number=64512)
    settings = [NO_MESH, configuration("node.c", listen_port=1790)]
    assert [(p.name, p.port, p.node) for p in compute("a", three, settings, [hub]).peers] == [
        ("Global_10_0_0_11_port_1790", 1790, "c")
    ]
    assert names(compute("c", three, settings, [hub])) == ["Node_10_0_0_10", "Node_10_0_0_9"]


def test_the_far_side_knows_the_near_one_by_its_local_as(three: Nodes) -> None:
    peer = bgp_peer(node="a", peer_ip="10.0.0.11", as_number=64512, local_as_number=65099)
    near, far = (only(compute(name, three, [NO_MESH], [peer])) for name in ("a", "c"))
    assert (near.local_as, near.as_number) == (far.as_number, far.local_as) == (65099, 64512)


def test_an_explicit_peering_takes_the_place_of_the_meshs(three: Nodes) -> None:
    peer = bgp_peer(node="a", peer_ip="10.0.0.11", as_number=64512, max_restart_time="7s")
    for name in ("a", "c"):
        topology = compute(name, three, [], [peer])
        (explicit,) = (p for p in topology.peers if p.name.startswith("Node_"))
        assert explicit.restart_time_s == 7
        assert len({p.address for p in topology.peers}) == len(topology.peers)


def test_of_two_peerings_the_global_one_then_the_first_name_wins(three: Nodes) -> None:
    both = [tor("a", node="a", max_restart_time="1s"), tor("c", max_restart_time="3s"), tor("b", max_restart_time="2s")]
    peer = only(compute("a", three, [NO_MESH], both))
    assert (peer.name, peer.restart_time_s) == ("Global_10_0_0_1", 2)


SECRET = BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="tor"))
ONE = "and there can be one session an address; make it agree with BGPPeer a, or delete one of them"


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ({"peer_ip": "10.0.0.1:1790"},
         f"spec.peerIP: '10.0.0.1:1790': BGPPeer a already peers with 10.0.0.1, port 179, not 1790, {ONE}"),
        ({"as_number": 65002},
         f"spec.asNumber: '65002': BGPPeer a already peers with 10.0.0.1, AS 65001, not 65002, {ONE}"),
        ({"node": "a", "as_number": 65002},
         f"spec.asNumber: '65002': BGPPeer a already peers with 10.0.0.1, AS 65001, not 65002, {ONE}"),
        ({"max_restart_time": "7s"},
         "spec.maxRestartTime: '7s': BGPPeer a already peers with 10.0.0.1, and its maxRestartTime holds; make it agree"
         " with BGPPeer a, or delete one of them"),
        ({"password": SECRET},
         "spec.password: 'Secret bgp, key tor': BGPPeer a already peers with 10.0.0.1, and its password holds; make it"
         " agree with BGPPeer a, or delete one of them"),
    ],
)  # fmt: skip
def test_of_two_peerings_with_one_address_the_one_that_is_passed_over_is_told(
    three: Nodes, second: dict[str, object], problem: str
) -> None:
    topology = compute("a", three, [NO_MESH], [tor("a"), tor("b", **second)])
    assert (names(topology), only(topology).as_number) == (["Global_10_0_0_1"], 65001)
    assert topology.problems == (f"BGPPeer b: {problem}",)


def test_two_peerings_that_say_the_same_are_no_problem(three: Nodes) -> None:
    topology = compute("a", three, [NO_MESH], [tor("a"), tor("b", node="a")])
    assert (names(topology), topology.problems) == (["Global_10_0_0_1"], ())


def test_peerings_that_overlap_in_several_nodes_are_told_of_once(three: Nodes) -> None:
    nodes = {name: replace(node, addresses={4: node.addresses[4]}) for name, node in three.items()}
    both = [bgp_peer("a", peer_selector="all()"), bgp_peer("b", peer_selector="all()", max_restart_time="7s")]
    (problem,) = compute("a", nodes, [NO_MESH], both).problems
    assert problem.startswith(
        "BGPPeer b: spec.maxRestartTime: '7s': BGPPeer a already peers with 10.0.0.10, 10.0.0.11,"
    )


def test_an_explicit_peering_that_the_reverse_of_another_contradicts_is_right(three: Nodes) -> None:
    near = bgp_peer("near", node="a", peer_ip="10.0.0.11", as_number=64512, max_restart_time="7s")
    far = bgp_peer("far", node="c", peer_ip="10.0.0.9", as_number=64512, reverse_peering="Manual")
    topology = compute("c", three, [NO_MESH], [near, far])
    assert (only(topology).restart_time_s, topology.problems) == (120, ())


def test_a_peering_that_takes_the_meshs_place_is_told_on_both_sides(three: Nodes) -> None:
    mesh = configuration(node_mesh_password=NodeMeshPassword(secret_key_ref=SecretKeySelector(name="bgp", key="mesh")))
    peer = bgp_peer(node="a", peer_ip="10.0.0.11", as_number=64512)
    assert compute("a", three, [mesh], [peer]).problems == (
        "BGPPeer tor: spec.peerIP: '10.0.0.11': takes the place of the session that BGPConfiguration default has in its"
        " mesh with 10.0.0.11 (node c) without the mesh's nodeMeshPassword; delete it, or set nodeToNodeMeshEnabled to"
        " false",
    )
    (far,) = compute("c", three, [mesh], [peer]).problems
    assert far.startswith("BGPPeer tor: spec.reversePeering: 'Auto': takes the place of the session ")
    assert compute("b", three, [mesh], [peer]).problems == ()
    everywhere = bgp_peer("all", peer_selector="all()")
    (problem,) = compute("a", three, [], [everywhere]).problems
    assert problem.startswith("BGPPeer all: spec.peerSelector: 'all()': takes the place ")
    assert "with 10.0.0.10 (node b), fd00::a (node b), 10.0.0.11 (node c); delete it" in problem


@pytest.mark.parametrize(
    ("spec", "goes_on", "words"),
    [
        ({"source_address": "None"}, True, "spec.sourceAddress"),
        ({"filters": ("f",)}, True, "spec.filters"),
        ({"reachable_by": "10.0.0.254"}, True, "spec.reachableBy"),
        ({"max_restart_time": "2h"}, True, "spec.maxRestartTime"),
        ({"peer_ip": "10.0.0.11", "as_number": 64512, "ttl_security": 1}, True, "spec.ttlSecurity"),
        ({"peer_ip": "", "local_workload_selector": "all()"}, False, "spec.localWorkloadSelector"),
        ({"node_selector": "rack ="}, False, "spec.nodeSelector"),
        ({"peer_ip": "tor.example"}, False, "spec.peerIP"),
    ],
)
def test_what_cant_be_followed_is_told_and_the_rest_goes_on(
    three: Nodes, spec: dict[str, object], goes_on: bool, words: str
) -> None:
    topology = compute("a", three, [NO_MESH], [tor("odd", **spec), tor("other", peer_ip="10.0.0.2")])
    odd = [peer for peer in topology.peers if peer.address != "10.0.0.2"]
    assert len(topology.peers) - len(odd) == 1
    assert len(odd) == goes_on
    assert all(peer.ttl_security == 0 and peer.restart_time_s <= 4095 for peer in odd)
    (problem,) = topology.problems
    assert problem.startswith(f"BGPPeer odd: {words}: ")


def test_ttl_security_beside_the_mesh_holds_in_one_direction_only(three: Nodes) -> None:
    (problem,) = compute("a", three, [], [tor(ttl_security=1)]).problems
    assert problem.startswith("Peer Global_10_0_0_1: ttlSecurity: 1: isn't asked of connections that the peer opens: ")
    password = BGPPassword(secret_key_ref=SecretKeySelector(name="bgp", key="tor"))
    (problem,) = compute("a", three, [], [tor(ttl_security=1, password=password)]).problems
    assert problem.startswith("Peer Global_10_0_0_1: ttlSecurity: 1: isn't asked of this peer: ")


def test_a_peer_of_a_family_that_the_node_lacks_is_told(three: Nodes) -> None:
    topology = compute("c", three, [NO_MESH], [tor(peer_ip="fd00::1")])
    assert topology.peers == ()
    (problem,) = topology.problems
    assert "node c has no IPv6 address" in problem


def test_service_ranges_are_not_followed(three: Nodes) -> None:
    ranges = (CIDRBlock(cidr="10.96.0.0/12"),)
    (problem,) = compute("a", three, [configuration(service_cluster_ips=ranges)], []).problems
    assert problem.startswith("BGPConfiguration default: spec.serviceClusterIPs: ['10.96.0.0/12']")


@pytest.mark.parametrize(
    ("wanted", "expected", "problems"),
    [("", "10.0.0.9", 0), ("192.0.2.1", "192.0.2.1", 0), ("hash", hash_router_id("a"), 0), ("fd00::1", "10.0.0.9", 1)],
)
def test_the_router_id_is_asked_for_or_the_nodes_address(
    three: Nodes, wanted: str, expected: str, problems: int
) -> None:
    topology = compute("a", three, [], [], router_id=wanted)
    assert (topology.router_id, len(topology.problems)) == (expected, problems)


def test_a_hashed_router_id_is_calicos() -> None:
    # The first bytes that sha256sum prints: 194fd408 and fc0a7931; no router ID is in 224.0.0.0/3.
    assert hash_router_id("kube-master") == "25.79.212.8"
    assert hash_router_id("node-39") == "220.10.121.49"


def test_without_ipv4_there_is_nothing_to_take_a_router_id_from(three: Nodes) -> None:
    nodes = {name: replace(node, addresses={6: node.addresses.get(6, "fd00::b/64")}) for name, node in three.items()}
    topology = compute("a", nodes, [], [])
    assert (topology.peers, topology.router_id) == ((), "")
    assert "CALICO_ROUTER_ID" in topology.problems[0]
    assert names(compute("a", nodes, [], [], router_id="hash")) == ["Mesh_fd00__a", "Mesh_fd00__b"]


def test_the_order_of_the_objects_decides_nothing(three: Nodes) -> None:
    peers = [tor("a", node="a"), tor("b"), REFLECTED, tor("c", peer_ip="10.0.0.1:1790")]
    backwards = dict(reversed(three.items()))
    for name in three:
        assert compute(name, three, [], peers) == compute(name, backwards, [], peers[::-1])
