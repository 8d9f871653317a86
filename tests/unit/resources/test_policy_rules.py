"""Rules of Calico's policies and profiles: what is right, what is wrong, and what ports and protocols mean."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources import global_network_policies, network_policies, profiles
from calipy.resources.policy_rules import plain_name, port_range, protocol_number, types_in_force
from tests.unit.resources.objects import made, said

NP, GNP, PROFILE = network_policies.KIND, global_network_policies.KIND, profiles.KIND
SERVICE = {"name": "db", "namespace": "data"}

# what an ingress and an egress rule may hold beside its action
RIGHT: list[dict[str, Any]] = [
    {},
    {"ipVersion": 4},
    {"ipVersion": 6},
    {"protocol": "TCP"},
    {"protocol": "UDPLite"},
    {"protocol": "SCTP", "destination": {"ports": [1, 65535]}},
    {"protocol": 255},
    {"protocol": "47"},
    {"protocol": 6, "destination": {"ports": [80]}},
    {"protocol": "17", "source": {"notPorts": ["53"]}},
    {"notProtocol": "UDP"},
    {"protocol": "TCP", "destination": {"ports": [80, "443", "8000:8100", "http", "a-1"]}},
    {"protocol": "TCP", "source": {"ports": ["1:65535"], "notPorts": [22]}},
    {"protocol": "TCP", "destination": {"ports": ["80:80"] * 50}},
    {"destination": {"ports": ["http"], "notPorts": ["metrics"]}},
    {"protocol": "ICMP"},
    {"protocol": "ICMP", "ipVersion": 4, "icmp": {"type": 8, "code": 0}},
    {"protocol": "ICMPv6", "ipVersion": 6, "icmp": {"type": 254, "code": 255}},
    {"protocol": 58, "icmp": {"type": 0}},
    {"protocol": "1", "notICMP": {"type": 3}},
    {"notICMP": {"type": 3}},
    {"protocol": "ICMP", "icmp": {}},
    {"notProtocol": "ICMPv6", "ipVersion": 6},
    {"source": {"nets": ["10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0"], "notNets": ["10.1.0.0/16"]}},
    {"source": {"nets": ["2001:db8::/32", "::/0"]}, "destination": {"notNets": ["fd00::/8"]}, "ipVersion": 6},
    {"source": {"nets": [f"10.0.{index}.0/24" for index in range(256)]}},
    {"source": {"selector": "app == 'web'", "notSelector": "has(old)", "namespaceSelector": "team == 'a'"}},
    {"source": {"namespaceSelector": "global()"}},
    {"source": {"namespaceSelector": "  global( )  ", "selector": "has(dns)"}},
    {"source": {"namespaceSelector": "projectcalico.org/name == 'test'"}},
    {"source": {"serviceAccounts": {"names": ["a", "b"], "selector": "role == 'api'"}, "nets": ["10.0.0.0/8"]}},
    {"metadata": {"annotations": {"why": "because", "Example.com/ticket": "7"}}},
]


@pytest.mark.parametrize("rule", RIGHT, ids=lambda rule: str(rule)[:70])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("kind", [NP, GNP, PROFILE], ids=lambda kind: kind.name)
def test_right(kind: Any, direction: str, rule: dict[str, Any]) -> None:
    assert said(kind, made(kind, {direction: [{"action": "Allow", **rule}]})) == []


PORT = "is no port; write 1 to 65535, min:max, or the name of a container's port"
PORT_NAME = (
    "can't be the name of a port; lower-case letters, digits and single dashes between them, 15 at most, "
    "a letter among them"
)
WITH_PORTS = "set protocol to TCP, UDP or SCTP"
PROTOCOL = "is no protocol; write 1 to 255, or one of ICMP, TCP, UDP, ICMPv6, SCTP, UDPLite"
CIDR = "is not a CIDR; write an address and a prefix length, 10.0.0.0/8 or 10.0.0.1/32"
FAMILIES = "write one rule for each IP version"
SYNTAX = "see Calico's selector syntax"
GLOBAL = "global() has no meaning here; it belongs into a rule's namespaceSelector, alone"
ALONE = "global() can't be combined with anything; write global() alone, or two rules"
BESIDE = "can't be combined with services: a Service's endpoints say who is meant; keep one of them, or write two rules"
LABEL = "letters, digits, -, _ and ., 63 at most, a letter or digit at both ends; before it, at will, a DNS name and /"
NAME = "can't be a name; lower-case letters, digits, dashes, dots; a letter or digit at both ends; 253 at most"

# what is wrong in an ingress rule | each problem: field behind spec.ingress[0], value, reason, remedy
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"ipVersion": 5}, [".ipVersion: 5: is no IP version; write 4 or 6, or leave it out"]),
    ({"protocol": 0}, [f".protocol: 0: {PROTOCOL}"]),
    ({"protocol": 256}, [f".protocol: 256: {PROTOCOL}"]),
    ({"protocol": "tcp", "destination": {"ports": [80]}}, [f".protocol: 'tcp': {PROTOCOL}"]),
    ({"protocol": "any"}, [f".protocol: 'any': {PROTOCOL}"]),
    ({"notProtocol": "-6"}, [f".notProtocol: '-6': {PROTOCOL}"]),
    (
        {"protocol": "ICMP", "ipVersion": 6},
        [".protocol: 'ICMP': is a protocol of IPv4, and ipVersion is 6; change one of them, or leave ipVersion out"],
    ),
    (
        {"protocol": 58, "ipVersion": 4},
        [".protocol: 58: is a protocol of IPv6, and ipVersion is 4; change one of them, or leave ipVersion out"],
    ),
    (
        {"notProtocol": "ICMP", "ipVersion": 6},
        [".notProtocol: 'ICMP': is a protocol of IPv4, and ipVersion is 6; change one of them, or leave ipVersion out"],
    ),
    ({"icmp": {"type": 8}}, [".icmp: {'type': 8}: is for ICMP only; set protocol to ICMP or ICMPv6"]),
    (
        {"protocol": "TCP", "icmp": {"type": 8}},
        [".icmp: {'type': 8}: is for ICMP only; set protocol to ICMP or ICMPv6"],
    ),
    (
        {"protocol": "ICMP", "icmp": {"type": 255, "code": 256}},
        [".icmp.type: 255: is out of range; write 0 to 254", ".icmp.code: 256: is out of range; write 0 to 255"],
    ),
    ({"protocol": "ICMP", "icmp": {"code": 0}}, [".icmp.code: 0: means nothing without its type; set type too"]),
    (
        {"notICMP": {"type": -1, "code": -1}},
        [
            ".notICMP.type: -1: is out of range; write 0 to 254",
            ".notICMP.code: -1: is out of range; write 0 to 255",
        ],
    ),
    ({"notICMP": {"code": 1}}, [".notICMP.code: 1: means nothing without its type; set type too"]),
    (
        {"http": {"methods": ["GET"]}},
        [
            ".http: {'methods': ['GET']}: needs a proxy that reads HTTP, which CalIPy doesn't have; "
            "match addresses and ports, and leave http out"
        ],
    ),
    ({"protocol": "TCP", "source": {"ports": [0]}}, [f".source.ports[0]: 0: {PORT}"]),
    ({"protocol": "TCP", "source": {"ports": [80, 65536]}}, [f".source.ports[1]: 65536: {PORT}"]),
    ({"protocol": "TCP", "source": {"notPorts": ["0:80"]}}, [f".source.notPorts[0]: '0:80': {PORT}"]),
    ({"protocol": "UDP", "destination": {"ports": ["81:80"]}}, [f".destination.ports[0]: '81:80': {PORT}"]),
    ({"protocol": "UDP", "destination": {"ports": ["1:65536"]}}, [f".destination.ports[0]: '1:65536': {PORT}"]),
    ({"destination": {"ports": ["HTTP"]}}, [f".destination.ports[0]: 'HTTP': {PORT_NAME}"]),
    ({"destination": {"ports": ["80-90"]}}, [f".destination.ports[0]: '80-90': {PORT_NAME}"]),
    ({"destination": {"ports": ["a--b"]}}, [f".destination.ports[0]: 'a--b': {PORT_NAME}"]),
    ({"destination": {"ports": ["-a"]}}, [f".destination.ports[0]: '-a': {PORT_NAME}"]),
    ({"destination": {"ports": ["a" * 16]}}, [f".destination.ports[0]: '{'a' * 16}': {PORT_NAME}"]),
    ({"destination": {"ports": [""]}}, [f".destination.ports[0]: '': {PORT_NAME}"]),
    (
        {"protocol": "TCP", "source": {"ports": [1] * 51}, "destination": {"notPorts": [1] * 51}},
        [
            ".source.ports: '51 entries': are too many; 50 at most",
            ".destination.notPorts: '51 entries': are too many; 50 at most",
        ],
    ),
    (
        {"source": {"ports": ["http", 80]}, "destination": {"notPorts": ["1:2"]}},
        [
            f".source.ports: [80]: are of no protocol, and only names know theirs; {WITH_PORTS}",
            f".destination.notPorts: ['1:2']: are of no protocol, and only names know theirs; {WITH_PORTS}",
        ],
    ),
    (
        {"notProtocol": "UDP", "destination": {"ports": [80]}},
        [f".destination.ports: [80]: are of no protocol, and only names know theirs; {WITH_PORTS}"],
    ),
    (
        {"protocol": "ICMP", "destination": {"ports": ["http"]}},
        [f".destination.ports: ['http']: protocol ICMP has no ports; {WITH_PORTS}"],
    ),
    (
        {"protocol": "UDPLite", "source": {"notPorts": [1]}},
        [f".source.notPorts: [1]: protocol UDPLite has no ports; {WITH_PORTS}"],
    ),
    ({"source": {"nets": ["web"]}}, [f".source.nets[0]: 'web': {CIDR}"]),
    (
        {"source": {"nets": ["web", "10.0.0.0/8", "db"]}},
        [f".source.nets[0]: 'web': {CIDR}", f".source.nets[2]: 'db': {CIDR}"],
    ),
    (
        {"ipVersion": 4, "destination": {"nets": ["::/0"]}},
        [f".destination.nets[0]: '::/0': is IPv6, but ipVersion is 4; {FAMILIES}"],
    ),
    (
        {"source": {"nets": ["10.0.0.0/8", "11.0.0.0/8"] * 2}},
        [".source.nets: ['10.0.0.0/8', '11.0.0.0/8']: are there twice; write each once"],
    ),
    ({"source": {"nets": ["10.0.0.1"]}}, [f".source.nets[0]: '10.0.0.1': {CIDR}"]),
    ({"source": {"nets": ["10.0.0.0/33"]}}, [f".source.nets[0]: '10.0.0.0/33': {CIDR}"]),
    ({"source": {"nets": ["10.0.0.0/255.0.0.0"]}}, [f".source.nets[0]: '10.0.0.0/255.0.0.0': {CIDR}"]),
    ({"source": {"nets": ["fe80::%eth0/64"]}}, [f".source.nets[0]: 'fe80::%eth0/64': {CIDR}"]),
    (
        {"destination": {"notNets": ["10.0.0.1/8"]}},
        [".destination.notNets[0]: '10.0.0.1/8': has bits set behind its prefix; write 10.0.0.0/8"],
    ),
    (
        {"source": {"nets": ["10.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"]}},
        [
            ".source.nets: ['10.0.0.0/8']: is there twice; write each once",
            ".source.nets[2]: '2001:db8::/32': is IPv6, but spec.ingress[0].source.nets[0] is IPv4; " + FAMILIES,
        ],
    ),
    (
        {"source": {"notNets": ["2001:db8::/32"]}, "destination": {"nets": ["10.0.0.0/8"]}},
        [
            ".destination.nets[0]: '10.0.0.0/8': is IPv4, but spec.ingress[0].source.notNets[0] is IPv6; " + FAMILIES,
        ],
    ),
    (
        {"ipVersion": 6, "source": {"nets": ["10.0.0.0/8"]}},
        [f".source.nets[0]: '10.0.0.0/8': is IPv4, but ipVersion is 6; {FAMILIES}"],
    ),
    (
        {"source": {"notNets": ["0.0.0.0/0"]}},
        [".source.notNets[0]: '0.0.0.0/0': leaves no address to match; leave the rule out"],
    ),
    (
        {"destination": {"notNets": ["0:0::/0"]}},
        [".destination.notNets[0]: '0:0::/0': leaves no address to match; leave the rule out"],
    ),
    (
        {"source": {"nets": [f"10.0.{index // 256}.{index % 256}/32" for index in range(257)]}},
        [".source.nets: '257 entries': are too many; 256 at most"],
    ),
    (
        {"source": {"selector": "app = 'web'"}},
        [
            ".source.selector: \"app = 'web'\": column 5: \"= 'web'\" begins no word, string or operator; " + SYNTAX,
        ],
    ),
    (
        {"source": {"notSelector": "a" * 1025}},
        [f".source.notSelector: '{'a' * 79}...: has 1025 characters; 1024 at most"],
    ),
    (
        {"destination": {"namespaceSelector": "!"}},
        [
            ".destination.namespaceSelector: '!': column 2: 'the end' where a label, has(), all(), global(), ! or ( "
            f"was expected; {SYNTAX}"
        ],
    ),
    (
        {"source": {"serviceAccounts": {"selector": "has(a", "names": ["x", "x"]}}},
        [
            ".source.serviceAccounts.names: ['x']: is there twice; write each once",
            f".source.serviceAccounts.selector: 'has(a': column 6: 'the end' where ) was expected; {SYNTAX}",
        ],
    ),
    ({"source": {"selector": " global() "}}, [f".source.selector: ' global() ': {GLOBAL}"]),
    ({"source": {"notSelector": "has(a) || global()"}}, [f".source.notSelector: 'has(a) || global()': {GLOBAL}"]),
    (
        {"source": {"serviceAccounts": {"selector": "!global()"}}},
        [f".source.serviceAccounts.selector: '!global()': {GLOBAL}"],
    ),
    (
        {"source": {"namespaceSelector": "global()||all()"}},
        [f".source.namespaceSelector: 'global()||all()': {ALONE}"],
    ),
    ({"source": {"namespaceSelector": "!global()"}}, [f".source.namespaceSelector: '!global()': {ALONE}"]),
    (
        {"source": {"services": SERVICE, "nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"]}},
        [f".source.nets: ['10.0.0.0/8']: {BESIDE}", f".source.notNets: ['10.1.0.0/16']: {BESIDE}"],
    ),
    (
        {
            "source": {
                "services": SERVICE,
                "selector": "a == 'b'",
                "notSelector": "has(c)",
                "namespaceSelector": "all()",
            }
        },
        [
            f".source.selector: \"a == 'b'\": {BESIDE}",
            f".source.notSelector: 'has(c)': {BESIDE}",
            f".source.namespaceSelector: 'all()': {BESIDE}",
        ],
    ),
    (
        {"source": {"services": SERVICE, "serviceAccounts": {"names": ["a"]}}},
        [f".source.serviceAccounts: {{'names': ['a']}}: {BESIDE}"],
    ),
    ({"source": {"services": {"namespace": "data"}}}, [".source.services.name: '': is empty; name the Service"]),
    (
        {"source": {"services": {"name": "DB", "namespace": "-"}}},
        [f".source.services.name: 'DB': {NAME}", f".source.services.namespace: '-': {NAME}"],
    ),
    (
        {"source": {"services": {"name": "a" * 254, "namespace": "a" * 253}}},
        [f".source.services.name: '{'a' * 79}...: {NAME}"],
    ),
    (
        {"destination": {"services": SERVICE}},
        [
            ".destination.services: {'name': 'db', 'namespace': 'data'}: ingress rules can't have it: their "
            "destination is the policy's own workload; move it to source, or leave it out"
        ],
    ),
    (
        {"metadata": {"annotations": {"...": "x"}}},
        [f".metadata.annotations: '...': can't be the name of an annotation; {LABEL}"],
    ),
    (
        {"metadata": {"annotations": {"a": "x" * (256 * 1024)}}},
        [".metadata.annotations: '262145 bytes': are too much; 262144 at most for all annotations"],
    ),
]


@pytest.mark.parametrize(("rule", "problems"), WRONG, ids=[str(row[0])[:70] for row in WRONG])
@pytest.mark.parametrize("kind", [NP, GNP, PROFILE], ids=lambda kind: kind.name)
def test_wrong(kind: Any, rule: dict[str, Any], problems: list[str]) -> None:
    value = made(kind, {"ingress": [{"action": "Deny", **rule}]})
    assert said(kind, value) == [f"spec.ingress[0]{problem}" for problem in problems]


EGRESS: list[tuple[dict[str, Any], list[str]]] = [
    ({"destination": {"services": SERVICE}}, []),
    (
        {"source": {"services": SERVICE}},
        [
            ".source.services: {'name': 'db', 'namespace': 'data'}: egress rules can't have it: their source is the "
            "policy's own workload; move it to destination, or leave it out"
        ],
    ),
    (
        {"protocol": "TCP", "destination": {"services": SERVICE, "ports": [80], "notPorts": ["http"]}},
        [
            ".destination.ports: [80]: can't be combined with services: a Service's endpoints have ports of their "
            "own; keep one of them",
            ".destination.notPorts: ['http']: can't be combined with services: a Service's endpoints have ports of "
            "their own; keep one of them",
        ],
    ),
]


@pytest.mark.parametrize(("rule", "problems"), EGRESS, ids=[str(row[0])[:70] for row in EGRESS])
@pytest.mark.parametrize("kind", [NP, GNP, PROFILE], ids=lambda kind: kind.name)
def test_services_are_destinations_of_egress_rules(kind: Any, rule: dict[str, Any], problems: list[str]) -> None:
    value = made(kind, {"egress": [{"action": "Allow"}, {"action": "Pass", **rule}]})
    assert said(kind, value) == [f"spec.egress[1]{problem}" for problem in problems]


@pytest.mark.parametrize(("kind", "may"), [(NP, True), (GNP, False), (PROFILE, False)], ids=["NP", "GNP", "Profile"])
@pytest.mark.parametrize(("direction", "end"), [("ingress", "source"), ("egress", "destination")])
def test_only_a_policy_in_a_namespace_may_name_a_service_without_one(
    kind: Any, may: bool, direction: str, end: str
) -> None:
    value = made(kind, {direction: [{"action": "Allow", end: {"services": {"name": "db"}}}]})
    field = f"spec.{direction}[0].{end}.services.namespace"
    reason = "is empty, and there is no namespace that could be meant; name the Service's namespace"
    assert said(kind, value) == ([] if may else [f"{field}: '': {reason}"])


def test_ingress_sources_may_have_services_and_ports() -> None:
    source = {"services": SERVICE, "ports": [80], "notPorts": ["http"]}
    assert said(NP, made(NP, {"ingress": [{"action": "Allow", "protocol": "TCP", "source": source}]})) == []


@pytest.mark.parametrize(
    ("ports", "range_"),
    [(80, (80, 80)), ("80", (80, 80)), ("80:90", (80, 90)), ("1:65535", (1, 65535)), ("http", None), ("80-90", None)],
)
def test_what_a_port_means(ports: int | str, range_: tuple[int, int] | None) -> None:
    assert port_range(ports) == range_


@pytest.mark.parametrize("port", [0, 65536, -1, "0", "65536", "9:8", "0:1", "1:65536"])
def test_no_port_at_all(port: int | str) -> None:
    with pytest.raises(ValueError, match="is no port or range of ports"):
        port_range(port)


@pytest.mark.parametrize(
    ("protocol", "number"),
    [("ICMP", 1), ("TCP", 6), ("UDP", 17), ("ICMPv6", 58), ("SCTP", 132), ("UDPLite", 136), (1, 1), ("255", 255)],
)
def test_the_number_of_a_protocol(protocol: int | str, number: int) -> None:
    assert protocol_number(protocol) == number


@pytest.mark.parametrize("protocol", [0, 256, "0", "256", "udp", "", "any"])
def test_no_protocol_at_all(protocol: int | str) -> None:
    with pytest.raises(ValueError, match="is no protocol"):
        protocol_number(protocol)


RULE = [{"action": "Allow"}]
TYPES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("Ingress",)),
    ({"ingress": RULE}, ("Ingress",)),
    ({"egress": RULE}, ("Egress",)),
    ({"ingress": RULE, "egress": RULE}, ("Ingress", "Egress")),
    ({"ingress": RULE, "types": ["Egress"]}, ("Egress",)),
    ({"types": ["Egress", "Ingress"]}, ("Egress", "Ingress")),
    ({"types": []}, ("Ingress",)),
]


@pytest.mark.parametrize(("spec", "types"), TYPES, ids=[str(row[0]) for row in TYPES])
@pytest.mark.parametrize("kind", [NP, GNP], ids=lambda kind: kind.name)
def test_the_directions_that_a_policy_governs(kind: Any, spec: dict[str, Any], types: tuple[str, ...]) -> None:
    assert types_in_force(made(kind, spec).spec) == types


@pytest.mark.parametrize(
    ("name", "tier", "plain"),
    [
        ("a", "", "a"),
        ("default.a", "", "a"),
        ("default.a", "default", "a"),
        ("default.a", "security", "default.a"),
        ("security.a", "security", "security.a"),
    ],
)
def test_the_tier_before_a_name_in_the_default_tier_is_no_part_of_it(name: str, tier: str, plain: str) -> None:
    assert plain_name(name, tier) == plain
