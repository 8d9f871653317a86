"""Staged policies: judged as the policies that they may become; a deletion says nothing but what goes."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources import (
    staged_global_network_policies,
    staged_kubernetes_network_policies,
    staged_network_policies,
)
from calipy.resources.metadata import Kind, Refused
from tests.unit.resources.objects import made, said

NAMESPACED, GLOBAL = staged_network_policies.KIND, staged_global_network_policies.KIND
KUBERNETES = staged_kubernetes_network_policies.KIND
ALL = (NAMESPACED, GLOBAL, KUBERNETES)


def staged(kind: Kind[Any], spec: dict[str, Any]) -> list[str]:
    return said(kind, made(kind, spec, namespace="shop" if kind.namespaced else ""))


@pytest.mark.parametrize("action", ["Set", "Learn", "Ignore", "Delete"])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_every_action(kind: Kind[Any], action: str) -> None:
    assert staged(kind, {"stagedAction": action}) == []


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_an_action_that_there_is_not(kind: Kind[Any]) -> None:
    with pytest.raises(Refused, match=r"spec\.stagedAction: 'Replace': Invalid enum value"):
        made(kind, {"stagedAction": "Replace"})


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_what_is_left_out_is_set(kind: Kind[Any]) -> None:
    assert made(kind, {}).spec.staged_action == "Set"


RULE = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}
HOST = {"applyOnForward": True}
BLANK = "has no meaning with stagedAction Delete: the name says which policy goes; leave it out"
# kind | spec | each problem: field, value, reason, remedy
JUDGED: list[tuple[Kind[Any], dict[str, Any], list[str]]] = [
    (NAMESPACED, {"tier": "a", "order": 1, "selector": "all()", "types": ["Ingress"], "ingress": [RULE]}, []),
    (GLOBAL, {"namespaceSelector": "has(a)", "egress": [RULE], "doNotTrack": True, **HOST}, []),
    (GLOBAL, {"ingress": [RULE], "types": ["Ingress"], "preDNAT": True, **HOST}, []),
    (KUBERNETES, {"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{"ports": [{"port": 80}]}]}, []),
    (NAMESPACED, {"stagedAction": "Delete", "tier": "a"}, []),
    (
        NAMESPACED,
        {"stagedAction": "Delete", "selector": "all()", "ingress": [RULE]},
        [
            f"spec.selector: 'all()': {BLANK}",
            "spec.ingress: [{'action': 'Allow', 'protocol': 'TCP', 'destination': {'ports': [80]}}]: " + BLANK,
        ],
    ),
    (GLOBAL, {"stagedAction": "Delete", **HOST}, [f"spec.applyOnForward: True: {BLANK}"]),
    (KUBERNETES, {"stagedAction": "Delete", "policyTypes": ["Egress"]}, [f"spec.policyTypes: ['Egress']: {BLANK}"]),
    (
        NAMESPACED,
        {"selector": "global()", "ingress": [{"action": "Allow", "destination": {"ports": [80]}}]},
        [
            "spec.selector: 'global()': global() has no meaning here; it belongs into a rule's namespaceSelector,"
            " alone",
            "spec.ingress[0].destination.ports: [80]: are of no protocol, and only names know theirs;"
            " set protocol to TCP, UDP or SCTP",
        ],
    ),
    (
        GLOBAL,
        {"namespaceSelector": "global()", "ingress": [{"action": "Allow", "source": {"services": {"name": "a"}}}]},
        [
            "spec.ingress[0].source.services.namespace: '': is empty, and there is no namespace that could be meant;"
            " name the Service's namespace",
            "spec.namespaceSelector: 'global()': global() has no meaning here; it belongs into a rule's"
            " namespaceSelector, alone",
        ],
    ),
    (
        GLOBAL,
        {"doNotTrack": True, "preDNAT": True, "egress": [RULE], "types": ["Egress"]},
        [
            "spec.preDNAT: True: can't be combined with doNotTrack; keep one of them",
            "spec.applyOnForward: False: is needed with doNotTrack; set it to true",
            "spec.egress: '1 entries': come after DNAT, and preDNAT is set; keep the policy to ingress",
            "spec.types: ['Egress']: Egress comes after DNAT, and preDNAT is set; write [Ingress]",
        ],
    ),
    (
        KUBERNETES,
        {"egress": [{"ports": [{"port": 0}]}]},
        ["spec.egress[0].ports[0].port: 0: is no port; write 1 to 65535, or the name of a container's port"],
    ),
]


@pytest.mark.parametrize(
    ("kind", "spec", "problems"), JUDGED, ids=[f"{row[0].name} {str(row[1])[:60]}" for row in JUDGED]
)
def test_judged(kind: Kind[Any], spec: dict[str, Any], problems: list[str]) -> None:
    assert staged(kind, spec) == problems


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_labels_are_judged_too(kind: Kind[Any]) -> None:
    (found,) = said(kind, made(kind, {}, labels={"a": "!"}))
    assert found.startswith("metadata.labels[a]: '!': can't be the value of a label")
