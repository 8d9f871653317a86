"""The words that people read about a route."""

from __future__ import annotations

import pytest

from calipy.explain.report import word

PEERS = {"10.9.0.12": "n2", "10.9.0.1": ""}


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("workload", "default/web", "pod default/web, on this node"),
        ("block", "own, default-ipv4-ippool", "the rest of this node's block of default-ipv4-ippool"),
        ("block", "own", "the rest of this node's block"),
        ("bgp", "10.9.0.12", "told by node n2 (10.9.0.12)"),
        ("bgp", "10.9.0.1", "told by BGP peer 10.9.0.1"),
        ("bgp", "10.9.0.12, 10.9.0.13", "told by node n2 (10.9.0.12), BGP peer 10.9.0.13"),
        ("vxlan", "n2", "pods of node n2, through the VXLAN tunnel"),
        ("vxlan-same-subnet", "n2", "pods of node n2, on the same subnet: no tunnel needed"),
        ("same-subnet", "n2", "pods of node n2, on the same subnet"),
    ],
)
def test_why_a_route_is_there(kind, name, words):
    assert word(kind, name, PEERS) == words
