"""IPPool: what is right, what is wrong, what can't change, and which of two that overlap is in force."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources.ip_pools import KIND, IPPool, changes, overlap_problems, overlaps
from calipy.resources.metadata import Refused
from tests.unit.resources.objects import made, said

RIGHT: list[dict[str, Any]] = [
    {"cidr": "10.244.0.0/16"},
    {"cidr": "10.244.0.0/26"},
    {"cidr": "10.244.0.0/16", "blockSize": 20},
    {"cidr": "10.244.0.0/32", "blockSize": 32},
    {"cidr": "fd00:10:244::/48", "blockSize": 116, "vxlanMode": "Always"},
    {"cidr": "FD00:10:244:0::/48"},
    {"cidr": "fd00::/122"},
    {"cidr": "10.244.0.0/16", "ipipMode": "CrossSubnet"},
    {"cidr": "10.244.0.0/28", "disabled": True},
    {"cidr": "10.244.0.0/16", "nodeSelector": "", "natOutgoing": True},
    {"cidr": "10.244.0.0/16", "allowedUses": ["Workload"], "namespaceSelector": "has(team)"},
    {"cidr": "192.0.2.0/24", "allowedUses": ["LoadBalancer"], "assignmentMode": "Manual"},
]


@pytest.mark.parametrize("spec", RIGHT, ids=str)
def test_right(spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec)) == []


# spec | each problem: field, value, reason, remedy
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"cidr": "10.244.1.7/16"}, ["spec.cidr: '10.244.1.7/16': has bits set behind its prefix; write 10.244.0.0/16"]),
    ({"cidr": "fd00::1/48"}, ["spec.cidr: 'fd00::1/48': has bits set behind its prefix; write fd00::/48"]),
    (
        {"cidr": "10.244.0.0"},
        ["spec.cidr: '10.244.0.0': is not a CIDR; write an address and a prefix length, 10.244.0.0/16"],
    ),
    ({"cidr": "pods"}, ["spec.cidr: 'pods': is not a CIDR; write an address and a prefix length, 10.244.0.0/16"]),
    (
        {"cidr": "10.244.0.0/33"},
        ["spec.cidr: '10.244.0.0/33': is not a CIDR; write an address and a prefix length, 10.244.0.0/16"],
    ),
    (
        {"cidr": "10.244.0.0/16", "blockSize": 19},
        ["spec.blockSize: 19: is not a block's prefix length in IPv4; 20 to 32"],
    ),
    (
        {"cidr": "10.244.0.0/16", "blockSize": 122},
        ["spec.blockSize: 122: is not a block's prefix length in IPv4; 20 to 32"],
    ),
    (
        {"cidr": "fd00::/48", "blockSize": 26},
        ["spec.blockSize: 26: is not a block's prefix length in IPv6; 116 to 128"],
    ),
    (
        {"cidr": "10.244.0.0/28"},
        ["spec.cidr: '10.244.0.0/28': is smaller than one block (/26); widen the range or raise blockSize"],
    ),
    (
        {"cidr": "169.254.3.0/24"},
        ["spec.cidr: '169.254.3.0/24': overlaps the link-local range 169.254.0.0/16; choose another range"],
    ),
    (
        {"cidr": "168.0.0.0/7"},
        ["spec.cidr: '168.0.0.0/7': overlaps the link-local range 169.254.0.0/16; choose another range"],
    ),
    ({"cidr": "fe80::/64"}, ["spec.cidr: 'fe80::/64': overlaps the link-local range fe80::/10; choose another range"]),
    (
        {"cidr": "10.244.0.0/16", "ipipMode": "Always", "vxlanMode": "CrossSubnet"},
        ["spec.vxlanMode: 'CrossSubnet': can't be combined with ipipMode; set one of them to Never"],
    ),
    (
        {"cidr": "fd00::/48", "ipipMode": "Always"},
        ["spec.ipipMode: 'Always': IPIP carries IPv4 only; use vxlanMode, or Never"],
    ),
    (
        {"cidr": "10.244.0.0/16", "allowedUses": []},
        ["spec.allowedUses: []: is empty; name Workload, Tunnel or LoadBalancer, or leave it out"],
    ),
    (
        {"cidr": "10.244.0.0/16", "allowedUses": ["Tunnel", "Tunnel"]},
        ["spec.allowedUses: ['Tunnel', 'Tunnel']: names one use twice; name each once"],
    ),
    (
        {"cidr": "10.244.0.0/16", "allowedUses": ["Workload", "LoadBalancer"]},
        ["spec.allowedUses: ['Workload', 'LoadBalancer']: LoadBalancer must stand alone; use two pools"],
    ),
    (
        {
            "cidr": "10.244.0.0/16",
            "allowedUses": ["LoadBalancer"],
            "vxlanMode": "Always",
            "disableBGPExport": True,
            "nodeSelector": "has(x)",
        },
        [
            "spec.allowedUses: ['LoadBalancer']: takes no encapsulation; set ipipMode and vxlanMode to Never",
            "spec.disableBGPExport: True: a LoadBalancer pool must be exported; set it to false",
            "spec.nodeSelector: 'has(x)': a LoadBalancer pool serves all nodes; write all()",
        ],
    ),
    (
        {"cidr": "10.244.0.0/16", "namespaceSelector": "has(team)"},
        ["spec.namespaceSelector: 'has(team)': tunnels have no namespace; set allowedUses to [Workload]"],
    ),
    (
        {"cidr": "10.244.0.0/16", "nodeSelector": "rack = 'a'"},
        [
            "spec.nodeSelector: \"rack = 'a'\": column 6: \"= 'a'\" begins no word, string or operator; "
            "see Calico's selector syntax"
        ],
    ),
    (
        {"cidr": "10.244.0.0/16", "nodeSelector": "a" * 1025},
        [f"spec.nodeSelector: '{'a' * 79}...: has 1025 characters; 1024 at most"],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), WRONG, ids=[str(row[0])[:70] for row in WRONG])
def test_wrong(spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec)) == problems


# what can't even be decoded | what is said
UNREADABLE = [
    ({}, "IPPool/a is refused: spec.cidr: '': is missing; see the schema of projectcalico.org/v3 IPPool"),
    (
        {"cidr": "10.0.0.0/8", "blockSize": "26"},
        "IPPool/a is refused: spec.blockSize: '26': Expected `int`, got `str`; "
        "see the schema of projectcalico.org/v3 IPPool",
    ),
    (
        {"cidr": "10.0.0.0/8", "vxlanMode": "always"},
        "IPPool/a is refused: spec.vxlanMode: 'always': Invalid enum value 'always'; "
        "see the schema of projectcalico.org/v3 IPPool",
    ),
    (
        {"cidr": "10.0.0.0/8", "allowedUses": ["Workload", "Pod"]},
        "IPPool/a is refused: spec.allowedUses[1]: 'Pod': Invalid enum value 'Pod'; "
        "see the schema of projectcalico.org/v3 IPPool",
    ),
]


@pytest.mark.parametrize(("spec", "text"), UNREADABLE, ids=[str(row[0]) for row in UNREADABLE])
def test_unreadable(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as raised:
        made(KIND, spec)
    assert str(raised.value) == text


REMEDY = "make a new pool, disable this one, and delete it when its addresses are given back"
# before | after | what is said
CHANGES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    (
        {"cidr": "10.0.0.0/16"},
        {"cidr": "10.0.0.0/17"},
        [f"spec.cidr: '10.0.0.0/17': was 10.0.0.0/16 and can't change; {REMEDY}"],
    ),
    (
        {"cidr": "10.0.0.0/16"},
        {"cidr": "10.0.0.0/16", "blockSize": 27},
        [f"spec.blockSize: 27: was 26 and can't change; {REMEDY}"],
    ),
    ({"cidr": "10.0.0.0/16"}, {"cidr": "10.0.0.0/16", "blockSize": 26}, []),
    ({"cidr": "FD00::/48"}, {"cidr": "fd00:0::/48"}, []),
    ({"cidr": "10.0.0.0/16"}, {"cidr": "10.0.0.0/16", "disabled": True, "vxlanMode": "Always"}, []),
    ({"cidr": "nonsense"}, {"cidr": "10.0.0.0/16"}, []),
]


@pytest.mark.parametrize(("before", "after", "problems"), CHANGES, ids=[str(row[1]) for row in CHANGES])
def test_changes(before: dict[str, Any], after: dict[str, Any], problems: list[str]) -> None:
    assert [str(problem) for problem in changes(made(KIND, before), made(KIND, after))] == problems


def pool(name: str, cidr: str, born: str) -> IPPool:
    found: IPPool = made(KIND, {"cidr": cidr}, name, creationTimestamp=f"2026-01-01T00:00:0{born}Z")
    return found


# pools: name, range, second of birth | who is refused, and for whose sake
OVERLAPS: list[tuple[list[tuple[str, str, str]], dict[str, str]]] = [
    ([("a", "10.0.0.0/16", "1"), ("b", "10.1.0.0/16", "2"), ("c", "fd00::/48", "3")], {}),
    ([("a", "10.0.0.0/16", "2"), ("b", "10.0.1.0/24", "1")], {"a": "IPPool/b"}),
    ([("a", "10.0.0.0/16", "1"), ("b", "10.0.1.0/24", "1")], {"b": "IPPool/a"}),
    ([("a", "10.0.0.0/16", "1"), ("b", "10.0.0.0/8", "2"), ("c", "10.9.0.0/16", "3")], {"b": "IPPool/a"}),
    (
        [("a", "fd00::/48", "1"), ("b", "fd00::/64", "2"), ("c", "fd00::/96", "3")],
        {"b": "IPPool/a", "c": "IPPool/a"},
    ),
]


@pytest.mark.parametrize(("pools", "refused"), OVERLAPS)
def test_of_two_that_overlap_the_older_is_in_force(pools: list[tuple[str, str, str]], refused: dict[str, str]) -> None:
    for order in (pools, pools[::-1]):
        found = overlaps(pool(*row) for row in order)
        assert found.keys() == refused.keys()
        for name, other in refused.items():
            assert f"of {other}, which is older" in found[name].reason
            assert found[name].field == "spec.cidr"


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ([], []),
        ([("b", "10.1.0.0/16")], []),
        ([("b", "10.0.128.0/17")], ["b"]),
        ([("b", "10.0.0.0/8"), ("c", "10.0.3.0/24")], ["b", "c"]),
        ([("a", "10.0.0.0/16")], []),
        ([("b", "fd00::/8"), ("c", "no CIDR")], []),
    ],
)
def test_a_new_pool_may_not_overlap_another(others: list[tuple[str, str]], named: list[str]) -> None:
    found = overlap_problems(pool("a", "10.0.0.0/16", ""), (pool(*row, "") for row in others))
    assert [problem.reason.rpartition("/")[2] for problem in found] == named
