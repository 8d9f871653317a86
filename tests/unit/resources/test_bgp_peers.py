"""BGPPeer: what is right and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources.bgp_peers import KIND, split_peer
from tests.unit.resources.objects import made, said

RIGHT: list[dict[str, Any]] = [
    {"peerIP": "192.0.2.1", "asNumber": 64512},
    {"peerIP": "192.0.2.1:1790", "asNumber": 4294967295, "node": "n1"},
    {"peerIP": "[2001:db8::1]:179", "asNumber": 64512, "nodeSelector": "rack == 'a'"},
    {"peerIP": "2001:db8::1", "asNumber": 64512, "reachableBy": "2001:db8::ff"},
    {"peerSelector": "has(reflector)", "nodeSelector": "all()"},
    {"localWorkloadSelector": "app == 'router'", "asNumber": 64513},
    {
        "peerIP": "192.0.2.1",
        "asNumber": 64512,
        "maxRestartTime": "2m",
        "keepaliveTime": "3s",
        "ttlSecurity": 255,
        "localASNumber": 65000,
        "numAllowedLocalASNumbers": 1,
        "nextHopMode": "Self",
        "sourceAddress": "None",
        "reversePeering": "Manual",
        "password": {"secretKeyRef": {"name": "bgp", "key": "rack"}},
        "filters": ["a", "b"],
    },
]


@pytest.mark.parametrize("spec", RIGHT, ids=str)
def test_right(spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec)) == []


PEER = {"peerIP": "192.0.2.1", "asNumber": 64512}
AS_RANGE = "is out of range; write an AS number, 1 to 4294967295 (RFC 6793)"
SYNTAX = "see Calico's selector syntax"
# spec | each problem: field, value, reason, remedy
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {},
        ["spec.peerIP: '': names nobody to peer with; set peerIP, peerSelector or localWorkloadSelector"],
    ),
    ({"peerIP": "192.0.2.1"}, ["spec.asNumber: 0: is required with peerIP; write the peer's AS number"]),
    (
        {**PEER, "peerIP": "tor1"},
        ["spec.peerIP: 'tor1': 'tor1' does not appear to be an IPv4 or IPv6 address; write ip, ip:port or [v6]:port"],
    ),
    (
        {**PEER, "peerIP": "192.0.2.1:0"},
        ["spec.peerIP: '192.0.2.1:0': '0' is not a port, 1 to 65535; write ip, ip:port or [v6]:port"],
    ),
    (
        {**PEER, "peerIP": "192.0.2.1:bgp"},
        ["spec.peerIP: '192.0.2.1:bgp': 'bgp' is not a port, 1 to 65535; write ip, ip:port or [v6]:port"],
    ),
    (
        {**PEER, "peerIP": "[2001:db8::1]"},
        ["spec.peerIP: '[2001:db8::1]': '[2001:db8::1]' is not [v6]:port; write ip, ip:port or [v6]:port"],
    ),
    (
        {**PEER, "node": "n1", "nodeSelector": "all()"},
        ["spec.nodeSelector: 'all()': can't be combined with node; keep one of them"],
    ),
    (
        {**PEER, "peerSelector": "all()"},
        [
            "spec.peerSelector: 'set': can't be combined with peerIP; keep one of them",
            "spec.asNumber: 64512: comes from the selected nodes; leave it out with peerSelector",
        ],
    ),
    (
        {"peerSelector": "all()", "localWorkloadSelector": "all()", "asNumber": 0},
        [
            "spec.localWorkloadSelector: 'set': can't be combined with peerSelector; keep one of them",
            "spec.asNumber: 0: is required with localWorkloadSelector; write the workload's AS number",
        ],
    ),
    ({**PEER, "asNumber": 4294967296}, [f"spec.asNumber: 4294967296: {AS_RANGE}"]),
    ({**PEER, "localASNumber": 0}, [f"spec.localASNumber: 0: {AS_RANGE}"]),
    ({**PEER, "ttlSecurity": 256}, ["spec.ttlSecurity: 256: is out of range; write hops, 0 to 255"]),
    (
        {**PEER, "numAllowedLocalASNumbers": -1},
        ["spec.numAllowedLocalASNumbers: -1: is out of range; write 0 or more"],
    ),
    (
        {**PEER, "maxRestartTime": "2 minutes", "keepaliveTime": "-3s"},
        [
            "spec.maxRestartTime: '2 minutes': is not a duration; write 90s, 1m30s, 1.5h or 300ms",
            "spec.keepaliveTime: '-3s': is less than nothing; write 0s or more",
        ],
    ),
    (
        {**PEER, "keepOriginalNextHop": True, "nextHopMode": "Self"},
        ["spec.keepOriginalNextHop: True: contradicts nextHopMode Self; leave it out"],
    ),
    (
        {**PEER, "reachableBy": "router"},
        ["spec.reachableBy: 'router': is not an address; write the gateway's address"],
    ),
    (
        {**PEER, "reachableBy": "2001:db8::1"},
        ["spec.reachableBy: '2001:db8::1': is IPv6, peerIP is not; write a gateway of the peer's family"],
    ),
    (
        {"peerSelector": "all()", "reachableBy": "192.0.2.1"},
        ["spec.reachableBy: '192.0.2.1': needs peerIP; set peerIP or leave it out"],
    ),
    (
        {**PEER, "nodeSelector": "rack"},
        [
            "spec.nodeSelector: 'rack': column 5: 'the end' where ==, !=, in, not in, contains, starts with or ends "
            f"with was expected; {SYNTAX}"
        ],
    ),
    (
        {"peerSelector": "(" * 3},
        [
            f"spec.peerSelector: '(((': column 4: 'the end' where a label, has(), all(), global(), "
            f"! or ( was expected; {SYNTAX}"
        ],
    ),
    ({**PEER, "node": "n" * 254}, [f"spec.node: '{'n' * 79}...: has 254 characters; 253 at most"]),
]


@pytest.mark.parametrize(("spec", "problems"), WRONG, ids=[str(row[0])[:80] for row in WRONG])
def test_wrong(spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec)) == problems


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.1:1790", "192.0.2.1", 1790),
        ("2001:DB8::1", "2001:db8::1", None),
        ("[2001:db8::1]:1790", "2001:db8::1", 1790),
    ],
)
def test_a_peers_address_and_port(text: str, address: str, port: int | None) -> None:
    assert split_peer(text) == (address, port)
