"""BGPConfiguration: what is right and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources.bgp_configurations import KIND
from tests.unit.resources.objects import made, said

RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("default", {}),
    ("default", {"asNumber": 4200000000, "listenPort": 1790, "logSeverityScreen": "debug", "bindMode": "NodeIP"}),
    ("default", {"nodeToNodeMeshEnabled": False, "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]}),
    ("default", {"nodeMeshPassword": {"secretKeyRef": {"name": "n", "key": "k"}}, "nodeMeshMaxRestartTime": "2m"}),
    (
        "default",
        {
            "communities": [{"name": "blue", "value": "64512:100"}, {"name": "large", "value": "4200000000:1:2"}],
            "prefixAdvertisements": [{"cidr": "10.244.0.0/16", "communities": ["blue", "large", "65535:1"]}],
        },
    ),
    ("node.n1", {"listenPort": 1790, "logSeverityScreen": "Debug"}),
    ("default", {"localWorkloadPeeringIPV4": "169.254.9.9", "localWorkloadPeeringIPV6": "fd00::9"}),
]


@pytest.mark.parametrize(("name", "spec"), RIGHT, ids=str)
def test_right(name: str, spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec, name)) == []


ONE_NODE = (
    "has no meaning for one node; set it on the object default (a node's AS: annotation projectcalico.org/ASNumber)"
)
# name | spec | each problem: field, value, reason, remedy
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("cluster", {}, ["metadata.name: 'cluster': no node reads it; name it default or node.<node name>"]),
    ("default", {"asNumber": 0}, ["spec.asNumber: 0: is not an AS number (RFC 6793); write 1 to 4294967295"]),
    ("default", {"listenPort": 65536}, ["spec.listenPort: 65536: is not a port; write 1 to 65535"]),
    (
        "default",
        {"ipv4NormalRoutePriority": 0},
        ["spec.ipv4NormalRoutePriority: 0: is not a route's metric; write 1 to 2147483646"],
    ),
    (
        "default",
        {"logSeverityScreen": "loud"},
        ["spec.logSeverityScreen: 'loud': is no level; write Trace, Debug, Info, Warning, Error, Fatal"],
    ),
    (
        "default",
        {"nodeMeshMaxRestartTime": "120"},
        ["spec.nodeMeshMaxRestartTime: '120': is not a duration; write 90s, 1m30s, 1.5h or 300ms"],
    ),
    (
        "default",
        {"nodeToNodeMeshEnabled": False, "nodeMeshMaxRestartTime": "2m"},
        ["spec.nodeMeshMaxRestartTime: 'set': the mesh is off; enable nodeToNodeMeshEnabled or leave it out"],
    ),
    ("node.n1", {"asNumber": 64513}, [f"spec.asNumber: 'set': {ONE_NODE}"]),
    ("node.n1", {"nodeToNodeMeshEnabled": True}, [f"spec.nodeToNodeMeshEnabled: 'set': {ONE_NODE}"]),
    (
        "default",
        {"serviceExternalIPs": [{"cidr": "192.0.2.0/24"}, {"cidr": "192.0.2.1/24"}]},
        ["spec.serviceExternalIPs[1].cidr: '192.0.2.1/24': has bits set behind its prefix; write 192.0.2.0/24"],
    ),
    (
        "default",
        {"serviceLoadBalancerIPs": [{"cidr": "192.0.2.1"}]},
        [
            "spec.serviceLoadBalancerIPs[0].cidr: '192.0.2.1': is not a CIDR; "
            "write an address and a prefix length, 10.96.0.0/12"
        ],
    ),
    (
        "default",
        {"communities": [{"name": "blue", "value": "64512:65536"}]},
        [
            "spec.communities[0].value: '64512:65536': is not a community; write aa:nn or aa:nn:mm",
            "spec.communities: ['blue']: serve no prefix; set prefixAdvertisements, or leave them out",
        ],
    ),
    (
        "default",
        {"prefixAdvertisements": [{"cidr": "10.0.0.1/8", "communities": ["red"]}]},
        [
            "spec.prefixAdvertisements[0].cidr: '10.0.0.1/8': has bits set behind its prefix; write 10.0.0.0/8",
            "spec.prefixAdvertisements[0].communities: 'red': is neither a community nor the name of one; "
            "name it in spec.communities, or write aa:nn or aa:nn:mm",
        ],
    ),
    (
        "default",
        {"localWorkloadPeeringIPV6": "169.254.9.9"},
        [
            "spec.localWorkloadPeeringIPV6: '169.254.9.9': is not an IPv6 address; "
            "write one that workloads peer with"
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "problems"), WRONG, ids=[str(row[1])[:80] for row in WRONG])
def test_wrong(name: str, spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec, name)) == problems
