"""What the lab's machines are told, as text that an operator can read."""

from __future__ import annotations

import subprocess

import pytest

from calipy import settings
from calipy.lab import topology
from calipy.lab.topology import OUTSIDE, Plan
from calipy.resources import bgp_peers
from calipy.resources.metadata import accept
from calipy.resources.selectors import parse

BIRD = """\
# The top-of-rack switch of a CalIPy lab: AS 64513, the nodes are AS 64512.
router id 10.9.9.1;
log stderr all;

protocol device { }

protocol direct outside_v4 { ipv4; interface "wan"; }
protocol kernel kernel_v4 { ipv4 { import none; export where source = RTS_BGP; }; }
template bgp node_v4 {
  local as 64513;
  hold time 9;
  passive on;
  error wait time 1, 2;
  ipv4 { import all; export where source = RTS_DEVICE; };
}
protocol bgp n1_v4 from node_v4 { source address 10.9.1.1; neighbor 10.9.1.11 as 64512; }
protocol bgp n2_v4 from node_v4 { source address 10.9.1.1; neighbor 10.9.1.12 as 64512; }
protocol bgp n3_v4 from node_v4 { source address 10.9.2.1; neighbor 10.9.2.13 as 64512; }

protocol direct outside_v6 { ipv6; interface "wan"; }
protocol kernel kernel_v6 { ipv6 { import none; export where source = RTS_BGP; }; }
template bgp node_v6 {
  local as 64513;
  hold time 9;
  passive on;
  error wait time 1, 2;
  ipv6 { import all; export where source = RTS_DEVICE; };
}
protocol bgp n1_v6 from node_v6 { source address fd00:9:0:1::1; neighbor fd00:9:0:1::11 as 64512; }
protocol bgp n2_v6 from node_v6 { source address fd00:9:0:1::1; neighbor fd00:9:0:1::12 as 64512; }
protocol bgp n3_v6 from node_v6 { source address fd00:9:0:2::1; neighbor fd00:9:0:2::13 as 64512; }
"""


def test_bird_s_configuration_of_three_nodes():
    assert topology.bird_configuration(Plan()) == BIRD


@pytest.mark.parametrize("plan", [Plan(), Plan(families="ipv4"), Plan(count=1), Plan(count=topology.NODES_MOST)])
def test_bird_takes_its_configuration(plan, tmp_path):
    path = tmp_path / "bird.conf"
    path.write_text(topology.bird_configuration(plan))

    done = subprocess.run(["/usr/sbin/bird", "-p", "-c", path], capture_output=True, text=True, timeout=20, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_every_third_node_stands_in_the_other_rack():
    racks = {node.name: node.segment.name for node in Plan(count=6).nodes}

    assert racks == {"n1": "rack-a", "n2": "rack-a", "n3": "rack-b", "n4": "rack-a", "n5": "rack-a", "n6": "rack-b"}


def test_a_rack_without_nodes_is_left_out():
    assert [segment.name for segment in Plan(count=2).segments] == ["rack-a", "wan"]


def test_addresses_are_all_different():
    plan = Plan(count=topology.NODES_MOST)
    for family in plan.versions:
        taken = [host.address(family) for host in (*plan.nodes, plan.outside)]
        taken += [segment.gateway(family) for segment in plan.segments]
        assert len(set(taken)) == len(taken)


@pytest.mark.parametrize(
    ("host", "families", "lines"),
    [
        pytest.param(
            "n3", "dual",
            ["link set eth0 up",
             "address add 10.9.2.13/24 dev eth0", "route add default via 10.9.2.1",
             "address add fd00:9:0:2::13/64 dev eth0 nodad", "route add default via fd00:9:0:2::1"],
            id="a node has a default route",
        ),
        pytest.param(
            OUTSIDE, "ipv4",
            ["link set eth0 up",
             "address add 10.9.9.99/24 dev eth0",
             "route add 10.9.1.0/24 via 10.9.9.1", "route add 10.9.2.0/24 via 10.9.9.1"],
            id="outside knows the racks and no pods",
        ),
    ],
)  # fmt: skip
def test_what_a_host_s_link_is_given(host, families, lines):
    plan = Plan(families=families)
    hosts = {each.name: each for each in (*plan.nodes, plan.outside)}

    assert list(topology.host_links(plan, hosts[host])) == lines


def test_each_rack_s_nodes_peer_with_tor_in_each_family():
    plan = Plan()
    peers = [accept(bgp_peers.KIND, peer).spec for peer in topology.peerings(plan)]

    sessions = {
        (node.name, peer.peer_ip, peer.as_number)
        for node in plan.nodes
        for peer in peers
        if parse(peer.node_selector).matches(settings.read(topology.agent_environment(plan, node)).node_labels)
    }

    assert sessions == {
        ("n1", "10.9.1.1", 64513), ("n1", "fd00:9:0:1::1", 64513),
        ("n2", "10.9.1.1", 64513), ("n2", "fd00:9:0:1::1", 64513),
        ("n3", "10.9.2.1", 64513), ("n3", "fd00:9:0:2::1", 64513),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("encapsulation", "vxlan"), [("none", "Never"), ("vxlan", "Always"), ("vxlan-crosssubnet", "CrossSubnet")]
)
@pytest.mark.parametrize(("families", "versions", "ip6"), [("ipv4", {4}, "none"), ("dual", {4, 6}, "autodetect")])
def test_what_an_agent_makes_of_its_environment(encapsulation, vxlan, families, versions, ip6):
    plan = Plan(encapsulation=encapsulation, families=families)

    read = settings.read(topology.agent_environment(plan, plan.nodes[0]))

    assert (read.node, read.ip, read.ip6, read.hold_time_s) == ("n1", "autodetect", ip6, 9)
    assert set(read.pools) == versions
    assert {(pool.vxlan, pool.nat_outgoing) for pool in read.pools.values()} == {(vxlan, True)}
