"""BGPFilter: what is right and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources.bgp_filters import KIND
from calipy.resources.metadata import Refused
from tests.unit.resources.objects import made, said

ACCEPT, REJECT = {"action": "Accept"}, {"action": "Reject"}
TEN = {"cidr": "10.0.0.0/8", "matchOperator": "In"}

RIGHT: list[dict[str, Any]] = [
    {},
    {"exportV4": [], "importV6": [REJECT]},
    {"exportV4": [{**ACCEPT, **TEN}, REJECT]},
    {
        "importV4": [
            {**REJECT, "cidr": "10.1.0.0/16", "matchOperator": "NotEqual", "prefixLength": {"min": 0, "max": 32}}
        ]
    },
    {"exportV6": [{**REJECT, "cidr": "2001:db8::/32", "matchOperator": "Equal", "prefixLength": {"max": 128}}]},
    {"exportV4": [{**REJECT, "source": "RemotePeers", "interface": "eth*", "peerType": "eBGP", "priority": 1024}]},
    {"importV4": [{**REJECT, "communities": {"values": ["64512:100"]}, "asPathPrefix": [65000, 4294967295]}]},
    {
        "importV6": [
            {
                **ACCEPT,
                "operations": [
                    {"addCommunity": {"value": "64512:1:2"}},
                    {"prependASPath": {"prefix": [65000, 65001]}},
                    {"setPriority": {"value": 2147483646}},
                ],
            }
        ]
    },
]


@pytest.mark.parametrize("spec", RIGHT, ids=str)
def test_right(spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec)) == []


def rule(**fields: Any) -> dict[str, Any]:
    return {"exportV4": [{**ACCEPT, **fields}]}


ONE = "spec.exportV4[0]"
# spec | each problem: field, value, reason, remedy
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        rule(cidr="10.0.0.0/8"),
        [f"{ONE}.matchOperator: '': is missing, and cidr is there; write Equal, NotEqual, In or NotIn"],
    ),
    (
        rule(matchOperator="In"),
        [f"{ONE}.cidr: '': is missing, and matchOperator is there; write the prefix to compare with"],
    ),
    (
        rule(prefixLength={"min": 8}),
        [f"{ONE}.cidr: '': is missing, and prefixLength is there; write the prefix to compare with"],
    ),
    (
        rule(cidr="10.0.0.1", matchOperator="In"),
        [f"{ONE}.cidr: '10.0.0.1': is not a CIDR; write an address and a prefix length, 10.0.0.0/8"],
    ),
    (
        rule(cidr="10.0.0.1/8", matchOperator="In"),
        [f"{ONE}.cidr: '10.0.0.1/8': has bits set behind its prefix; write 10.0.0.0/8"],
    ),
    (
        rule(cidr="fd00::/8", matchOperator="In"),
        [f"{ONE}.cidr: 'fd00::/8': is IPv6, and these rules are for IPv4; move the rule to the list for IPv6"],
    ),
    (
        {"importV6": [REJECT, {**REJECT, **TEN}, {**REJECT, "cidr": "x", "matchOperator": "In"}]},
        [
            "spec.importV6[1].cidr: '10.0.0.0/8': is IPv4, and these rules are for IPv6;"
            " move the rule to the list for IPv4",
            "spec.importV6[2].cidr: 'x': is not a CIDR; write an address and a prefix length, 2001:db8::/32",
        ],
    ),
    (
        rule(**TEN, prefixLength={"min": -1, "max": 33}),
        [
            f"{ONE}.prefixLength.min: -1: is out of range; write 0 to 32",
            f"{ONE}.prefixLength.max: 33: is out of range; write 0 to 32",
        ],
    ),
    (
        {"exportV6": [{**REJECT, "cidr": "fd00::/8", "matchOperator": "In", "prefixLength": {"max": 129}}]},
        ["spec.exportV6[0].prefixLength.max: 129: is out of range; write 0 to 128"],
    ),
    (
        rule(interface="eth 0"),
        [f"{ONE}.interface: 'eth 0': can't be an interface's name; letters, digits, _, ., - and *, 15 at most"],
    ),
    (
        rule(interface="e" * 16),
        [f"{ONE}.interface: '{'e' * 16}': can't be an interface's name; letters, digits, _, ., - and *, 15 at most"],
    ),
    (
        rule(communities={"values": []}),
        [f"{ONE}.communities.values: []: isn't one community; write exactly one, and a rule for each other"],
    ),
    (
        rule(communities={"values": ["1:2", "no-export"]}),
        [
            f"{ONE}.communities.values: ['1:2', 'no-export']: isn't one community; write exactly one, and a rule for"
            " each other",
            f"{ONE}.communities.values[1]: 'no-export': is not a community; write aa:nn or aa:nn:mm",
        ],
    ),
    (rule(asPathPrefix=[1, -1]), [f"{ONE}.asPathPrefix[1]: -1: is out of range; write 0 to 4294967295"]),
    (rule(priority=0), [f"{ONE}.priority: 0: is out of range; write 1 to 2147483646"]),
    (
        {"exportV4": [{**REJECT, "operations": [{"setPriority": {"value": 1}}]}]},
        [f"{ONE}.operations: '1 entries': change a route that is rejected; leave them out"],
    ),
    (
        rule(operations=[{"setPriority": {"value": 1}}] * 11),
        [f"{ONE}.operations: '11 entries': are too many; 10 at most"],
    ),
    (
        rule(operations=[{}, {"setPriority": {"value": 0}, "addCommunity": {"value": "1"}}]),
        [
            f"{ONE}.operations[0]: []: isn't one change; write one of addCommunity, prependASPath, setPriority, and an"
            " operation for each other",
            f"{ONE}.operations[1]: ['addCommunity', 'setPriority']: isn't one change; write one of addCommunity,"
            " prependASPath, setPriority, and an operation for each other",
            f"{ONE}.operations[1].addCommunity.value: '1': is not a community; write aa:nn or aa:nn:mm",
            f"{ONE}.operations[1].setPriority.value: 0: is out of range; write 1 to 2147483646",
        ],
    ),
    (
        rule(operations=[{"prependASPath": {"prefix": []}}, {"prependASPath": {"prefix": [1 << 32]}}]),
        [
            f"{ONE}.operations[0].prependASPath.prefix: []: has 0 AS numbers; write one to ten",
            f"{ONE}.operations[1].prependASPath.prefix[0]: 4294967296: is out of range; write 0 to 4294967295",
        ],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), WRONG, ids=[str(row[0])[:80] for row in WRONG])
def test_wrong(spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec)) == problems


UNREADABLE = [
    ({"exportV4": [{}]}, r"spec\.exportV4\[0\]\.action: '': is missing"),
    ({"exportV4": [{"action": "Allow"}]}, r"spec\.exportV4\[0\]\.action: 'Allow': Invalid enum value"),
    ({"exportV4": [{**ACCEPT, "source": "Local"}]}, r"spec\.exportV4\[0\]\.source: 'Local': Invalid enum value"),
    ({"exportV4": [{**ACCEPT, "peerType": "ibgp"}]}, r"spec\.exportV4\[0\]\.peerType: 'ibgp': Invalid enum value"),
    ({"exportV4": [{**ACCEPT, "communities": {}}]}, r"spec\.exportV4\[0\]\.communities\.values: '': is missing"),
]


@pytest.mark.parametrize(("spec", "said"), UNREADABLE, ids=[str(row[0])[:80] for row in UNREADABLE])
def test_unreadable(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        made(KIND, spec)
