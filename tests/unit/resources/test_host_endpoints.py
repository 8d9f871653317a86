"""HostEndpoint: what is right and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources.host_endpoints import KIND
from tests.unit.resources.objects import made, said

RIGHT: list[dict[str, Any]] = [
    {"node": "n1", "interfaceName": "eth0"},
    {"node": "n1.example.com", "interfaceName": "*"},
    {"node": "n1", "expectedIPs": ["192.0.2.1", "2001:db8::1"]},
    {
        "node": "n1",
        "interfaceName": "eth0.100",
        "expectedIPs": ["192.0.2.1"],
        "profiles": ["base", "kns.default"],
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 80},
            {"name": "dns", "protocol": 17, "port": 53},
            {"name": "m3ua", "protocol": "132", "port": 65535},
        ],
    },
]


@pytest.mark.parametrize("spec", RIGHT, ids=str)
def test_right(spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec)) == []


ETH = {"node": "n1", "interfaceName": "eth0"}
NAME = "lower-case letters, digits, dashes, dots; a letter or digit at both ends"
PORT_NAME = "lower-case letters, digits and single dashes between them, 15 at most, a letter among them"
# spec | each problem: field, value, reason, remedy
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {},
        [
            "spec.node: '': is empty; name the node whose interface this is",
            "spec.interfaceName: '': is empty, and so is expectedIPs: no interface is meant; name the interface,"
            " write * for all, or set expectedIPs",
        ],
    ),
    ({**ETH, "node": "N1"}, [f"spec.node: 'N1': can't be a name; {NAME}"]),
    ({**ETH, "node": "n" * 254}, [f"spec.node: '{'n' * 79}...: has 254 characters; 253 at most"]),
    *(
        (
            {**ETH, "interfaceName": name},
            [
                f"spec.interfaceName: {name!r}: can't be an interface's name; letters, digits, _, . and -, 15 at most;"
                " or * for all interfaces"
            ],
        )
        for name in ("eth*", "e" * 16, "eth 0", "eth0:1")
    ),
    (
        {**ETH, "expectedIPs": ["192.0.2.1", "192.0.2.0/24", "192.0.2.1", "fe80::1%eth0"]},
        [
            "spec.expectedIPs: ['192.0.2.1', '192.0.2.0/24', '192.0.2.1', 'fe80::1%eth0']: names one twice;"
            " write each once",
            "spec.expectedIPs[1]: '192.0.2.0/24': is not an address; write 192.0.2.1 or 2001:db8::1",
            "spec.expectedIPs[3]: 'fe80::1%eth0': is not an address; write 192.0.2.1 or 2001:db8::1",
        ],
    ),
    (
        {**ETH, "profiles": ["a", "a", "B"]},
        [
            "spec.profiles: ['a', 'a', 'B']: names one twice; write each once",
            f"spec.profiles[2]: 'B': can't be a name; {NAME}",
        ],
    ),
    (
        {**ETH, "ports": [{"name": "", "protocol": "ICMP", "port": 0}, {"name": "80", "protocol": 256, "port": 65536}]},
        [
            f"spec.ports[0].name: '': can't be the name of a port; {PORT_NAME}",
            "spec.ports[0].protocol: 'ICMP': is no protocol with ports; write TCP, UDP or SCTP",
            "spec.ports[0].port: 0: is no port; write 1 to 65535",
            f"spec.ports[1].name: '80': can't be the name of a port; {PORT_NAME}",
            "spec.ports[1].protocol: 256: is no protocol with ports; write TCP, UDP or SCTP",
            "spec.ports[1].port: 65536: is no port; write 1 to 65535",
        ],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), WRONG, ids=[str(row[0])[:80] for row in WRONG])
def test_wrong(spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec)) == problems


def test_labels_are_judged_too() -> None:
    (found,) = said(KIND, made(KIND, ETH, labels={"a": "!"}))
    assert found.startswith("metadata.labels[a]: '!': can't be the value of a label")
