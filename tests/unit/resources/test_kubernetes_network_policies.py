"""Kubernetes' own NetworkPolicy: what is right, what is wrong, and what absent, null and empty parts mean."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from calipy.resources.kubernetes_network_policies import KIND, types_in_force
from calipy.resources.label_selectors import LabelSelector
from calipy.resources.metadata import Key, Refused, decode
from tests.unit.resources.objects import made, said

EVERYBODY: dict[str, Any] = {"podSelector": {}}


def rule(**parts: Any) -> dict[str, Any]:
    """A spec with one ingress rule."""
    return {"podSelector": {}, "ingress": [parts]}


RIGHT: list[dict[str, Any]] = [
    {},
    EVERYBODY,
    {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]},
    {"ingress": [], "egress": []},
    {"ingress": [{}], "egress": [{}], "policyTypes": ["Egress"]},
    rule(**{"from": [], "ports": []}),
    rule(**{"from": [EVERYBODY, {"namespaceSelector": {}}, {"podSelector": {}, "namespaceSelector": {}}]}),
    rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.3.4/32"]}}]}),
    rule(**{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, {"ipBlock": {"cidr": "::/0"}}]}),
    rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.1/8", "except": ["10.1.2.3/16"]}}]}),
    rule(ports=[{}, {"protocol": "UDP"}, {"port": 80}, {"protocol": "SCTP", "port": "http-alt"}]),
    rule(ports=[{"port": 1, "endPort": 65535}, {"port": 80, "endPort": 80}]),
]


@pytest.mark.parametrize("spec", RIGHT, ids=lambda spec: str(spec)[:70])
def test_right(spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec)) == []


PORT = "is no port; write 1 to 65535, or the name of a container's port"
PORT_NAME = (
    "can't be the name of a port; lower-case letters, digits and single dashes between them, 15 at most, "
    "a letter among them"
)
NUMBER = "needs a port that is a number; set port to the first of the range"
NOBODY = "names nobody; write ipBlock, podSelector or namespaceSelector; {} selects all"
CIDR = "is not a CIDR; write an address and a prefix length, 10.0.0.0/8 or 2001:db8::/32"
PART = "write a smaller range inside of cidr"
WORD = "letters, digits, -, _ and ., 63 at most, a letter or digit at both ends"
VALUE = f"can't be the value of a label; {WORD}, or nothing at all"

WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"podSelector": {"matchLabels": {"a": "!"}}},
        [f"spec.podSelector.matchLabels[a]: '!': {VALUE}"],
    ),
    (
        {"policyTypes": ["Ingress", "Egress", "Ingress"]},
        ["spec.policyTypes: ['Ingress', 'Egress', 'Ingress']: are too many; name Ingress, Egress, or both"],
    ),
    (rule(ports=[{"port": 0}]), [f"spec.ingress[0].ports[0].port: 0: {PORT}"]),
    (rule(ports=[{"port": 65536}]), [f"spec.ingress[0].ports[0].port: 65536: {PORT}"]),
    (rule(ports=[{"port": "80"}]), [f"spec.ingress[0].ports[0].port: '80': {PORT_NAME}"]),
    (rule(ports=[{"port": "Web"}]), [f"spec.ingress[0].ports[0].port: 'Web': {PORT_NAME}"]),
    (
        rule(ports=[{"port": 80, "endPort": 79}, {"port": 80, "endPort": 65536}]),
        [
            "spec.ingress[0].ports[0].endPort: 79: can't end a range from 80; write port to 65535",
            "spec.ingress[0].ports[1].endPort: 65536: can't end a range from 80; write port to 65535",
        ],
    ),
    (
        rule(ports=[{"port": "http", "endPort": 90}, {"endPort": 90}]),
        [
            f"spec.ingress[0].ports[0].endPort: 90: {NUMBER}",
            f"spec.ingress[0].ports[1].endPort: 90: {NUMBER}",
        ],
    ),
    (rule(**{"from": [{}]}), [f"spec.ingress[0].from[0]: {{}}: {NOBODY}"]),
    (rule(**{"from": [{"podSelector": None}]}), [f"spec.ingress[0].from[0]: {{}}: {NOBODY}"]),
    (
        rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
        ["spec.ingress[0].from[0].ipBlock: '10.0.0.0/8': can't be combined with podSelector; write two peers"],
    ),
    (
        rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "namespaceSelector": {"matchLabels": {"a": "!"}}}]}),
        [
            f"spec.ingress[0].from[0].namespaceSelector.matchLabels[a]: '!': {VALUE}",
            "spec.ingress[0].from[0].ipBlock: '10.0.0.0/8': can't be combined with namespaceSelector; write two peers",
        ],
    ),
    (rule(**{"from": [{"ipBlock": {"cidr": ""}}]}), [f"spec.ingress[0].from[0].ipBlock.cidr: '': {CIDR}"]),
    (
        rule(**{"from": [{"ipBlock": {"cidr": "web", "except": ["10.0.0.0/8"]}}]}),
        [f"spec.ingress[0].from[0].ipBlock.cidr: 'web': {CIDR}"],
    ),
    (
        rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["db"]}}]}),
        [f"spec.ingress[0].from[0].ipBlock.except[0]: 'db': {CIDR}"],
    ),
    (
        rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.1", "except": ["web"]}}]}),
        [
            f"spec.ingress[0].from[0].ipBlock.cidr: '10.0.0.1': {CIDR}",
            f"spec.ingress[0].from[0].ipBlock.except[0]: 'web': {CIDR}",
        ],
    ),
    (
        rule(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "11.0.0.0/16", "fd00::/64"]}}]}),
        [
            f"spec.ingress[0].from[0].ipBlock.except[0]: '10.0.0.0/8': is not a part of 10.0.0.0/8; {PART}",
            f"spec.ingress[0].from[0].ipBlock.except[1]: '11.0.0.0/16': is not a part of 10.0.0.0/8; {PART}",
            f"spec.ingress[0].from[0].ipBlock.except[2]: 'fd00::/64': is not a part of 10.0.0.0/8; {PART}",
        ],
    ),
    (
        {"egress": [{}, {"to": [{}], "ports": [{"port": 0}]}]},
        [f"spec.egress[1].ports[0].port: 0: {PORT}", f"spec.egress[1].to[0]: {{}}: {NOBODY}"],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), WRONG, ids=[str(row[0])[:70] for row in WRONG])
def test_wrong(spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec)) == problems


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    (rule(ports=[{"protocol": "ICMP"}]), "spec.ingress[0].ports[0].protocol: 'ICMP': Invalid enum value 'ICMP'"),
    ({"policyTypes": ["Both"]}, "spec.policyTypes[0]: 'Both': Invalid enum value 'Both'"),
    (
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}},
        "spec.podSelector.matchExpressions[0].operator: 'Gt': Invalid enum value 'Gt'",
    ),
    (rule(**{"from": [{"ipBlock": {}}]}), "spec.ingress[0].from[0].ipBlock.cidr: '': is missing"),
]


@pytest.mark.parametrize(("spec", "said"), UNREADABLE, ids=[row[1] for row in UNREADABLE])
def test_unreadable(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as raised:
        made(KIND, spec)
    remedy = "see the schema of networking.k8s.io/v1 NetworkPolicy"
    assert str(raised.value) == f"KubernetesNetworkPolicy/a is refused: {said}; {remedy}"


TYPES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("Ingress",)),
    ({"ingress": [{}]}, ("Ingress",)),
    ({"egress": []}, ("Ingress",)),
    ({"egress": [{}]}, ("Ingress", "Egress")),
    ({"egress": [{}], "policyTypes": ["Egress"]}, ("Egress",)),
    ({"egress": [{}], "policyTypes": ["Ingress"]}, ("Ingress",)),
    ({"policyTypes": []}, ("Ingress",)),
]


@pytest.mark.parametrize(("spec", "types"), TYPES, ids=[str(row[0]) for row in TYPES])
def test_the_directions_that_a_policy_isolates(spec: dict[str, Any], types: tuple[str, ...]) -> None:
    assert types_in_force(made(KIND, spec).spec) == types


def test_labels_and_annotations_are_judged_too() -> None:
    value = made(KIND, {}, labels={"a": "!"}, annotations={"b": "!"})
    assert said(KIND, value) == [f"metadata.labels[a]: '!': {VALUE}"]


def test_a_selector_that_is_empty_is_there_and_one_that_is_absent_is_not() -> None:
    spec = made(KIND, rule(**{"from": [{"podSelector": {}}, {"namespaceSelector": {}}]})).spec
    assert spec.pod_selector == LabelSelector()
    pods, namespaces = spec.ingress[0].from_
    assert (pods.pod_selector, pods.namespace_selector) == (LabelSelector(), None)
    assert (namespaces.pod_selector, namespaces.namespace_selector) == (None, LabelSelector())


def test_its_documents_say_what_kubernetes_says_and_its_key_is_its_own() -> None:
    policy = made(KIND, {}, "web", namespace="one")
    document = msgspec.json.decode(msgspec.json.encode(policy))
    assert (document["apiVersion"], document["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert KIND.key(policy) == Key("KubernetesNetworkPolicy", "web", "one")
    assert (KIND.name, KIND.kind, KIND.resource) == ("KubernetesNetworkPolicy", "NetworkPolicy", "networkpolicies")


def test_calicos_policy_is_none_of_kubernetes() -> None:
    text = b'{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "a"}}'
    with pytest.raises(Refused, match="apiVersion: 'projectcalico.org/v3': Invalid enum value"):
        decode(KIND, text)
