"""A Node's annotations -> where it is; what can't be read counts as absent."""

from __future__ import annotations

import pytest

from calipy.conversion.nodes import node_address, parse_as_number, vxlan_mac
from calipy.model.nodes import NodeAddress, TunnelEnd
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import Node

P = "projectcalico.org/"


def where(**notes: str) -> NodeAddress:
    annotations = {f"{P}{name}": text for name, text in notes.items()}
    return node_address(Node(metadata=ObjectMeta(name="n1", labels={"rack": "a"}, annotations=annotations)))


@pytest.mark.parametrize(
    ("notes", "addresses"),
    [
        ({}, {}),
        ({"IPv4Address": "10.9.0.11/24"}, {4: "10.9.0.11/24"}),
        ({"IPv4Address": "10.9.0.11/24", "IPv6Address": "fd09::11/64"}, {4: "10.9.0.11/24", 6: "fd09::11/64"}),
        ({"IPv4Address": "fd09::11/64"}, {}),
        ({"IPv4Address": "10.9.0"}, {}),
        ({"IPv4Address": ""}, {}),
    ],
)
def test_addresses(notes: dict[str, str], addresses: dict[int, str]) -> None:
    assert where(**notes).addresses == addresses


@pytest.mark.parametrize(
    ("notes", "ends"),
    [
        ({"IPv4VXLANTunnelAddr": "10.244.1.1"}, {4: TunnelEnd("10.244.1.1", vxlan_mac("n1", 4))}),
        (
            {"IPv4VXLANTunnelAddr": "10.244.1.1", "VXLANTunnelMACAddr": "66:01:02:03:04:05"},
            {4: TunnelEnd("10.244.1.1", "66:01:02:03:04:05")},
        ),
        (
            {"IPv6VXLANTunnelAddr": "fd00::1", "VXLANTunnelMACAddrV6": "66:01:02:03:04:06"},
            {6: TunnelEnd("fd00::1", "66:01:02:03:04:06")},
        ),
        ({"VXLANTunnelMACAddr": "66:01:02:03:04:05"}, {}),
    ],
)
def test_tunnel_ends(notes: dict[str, str], ends: dict[int, TunnelEnd]) -> None:
    assert where(**notes).vxlan == ends


def test_a_macs_default_is_a_hash_of_the_name_one_for_each_family() -> None:
    four, six = vxlan_mac("n1", 4), vxlan_mac("n1", 6)
    assert (four[:3], six[:3], len(four)) == ("66:", "66:", 17)
    assert len({four, six, vxlan_mac("n2", 4)}) == 3


def test_the_rest() -> None:
    found = where(ASNumber="64513", RouteReflectorClusterID="244.0.0.1")
    assert (found.name, found.as_number, found.cluster_id, found.labels) == ("n1", 64513, "244.0.0.1", {"rack": "a"})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("64512", 64512), ("1.10", 65546), ("4294967295", 4294967295), ("0", None), ("4294967296", None), ("", None),
        ("AS1", None), ("1.", None), (".1", None), ("-1", None), ("1.70000", None), ("70000.1", None), ("1.2.3", None),
    ],
)  # fmt: skip
def test_as_numbers(text: str, number: int | None) -> None:
    assert parse_as_number(text) == number
