"""CalicoNodeStatus and KubeControllersConfiguration: what is right and what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from calipy.resources import calico_node_statuses, kube_controllers_configurations
from calipy.resources.metadata import Refused, decode
from tests.unit.resources.objects import made, said

STATUS, CONTROLLERS = calico_node_statuses.KIND, kube_controllers_configurations.KIND

ASKED = {"node": "n1", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 10}
# spec | each problem: field, value, reason, remedy
STATUSES: list[tuple[dict[str, Any], list[str]]] = [
    (ASKED, []),
    ({**ASKED, "updatePeriodSeconds": 0}, []),
    ({**ASKED, "updatePeriodSeconds": 86400, "classes": ["BGP"]}, []),
    (
        {},
        [
            "spec.node: '': is empty; name the node that is to tell of itself",
            "spec.classes: []: is empty; name Agent, BGP, Routes, or some of them",
            "spec.updatePeriodSeconds: '': is missing; write 1 to 86400, or 0 for never",
        ],
    ),
    (
        {**ASKED, "node": "n_1"},
        ["spec.node: 'n_1': can't be a name; lower-case letters, digits, dashes, dots; a letter or digit at both ends"],
    ),
    (
        {**ASKED, "classes": ["BGP", "BGP"]},
        ["spec.classes: ['BGP', 'BGP']: names one class twice; name each once"],
    ),
    (
        {**ASKED, "updatePeriodSeconds": 86401},
        ["spec.updatePeriodSeconds: 86401: is out of range; write 0 to 86400"],
    ),
]


@pytest.mark.parametrize(("spec", "problems"), STATUSES, ids=[str(row[0])[:80] for row in STATUSES])
def test_node_statuses(spec: dict[str, Any], problems: list[str]) -> None:
    assert said(STATUS, made(STATUS, spec)) == problems


def test_an_unknown_class_can_not_be_read() -> None:
    with pytest.raises(Refused, match=r"spec\.classes\[0\]: 'Felix': Invalid enum value"):
        made(STATUS, {**ASKED, "classes": ["Felix"]})


def test_a_status_as_calico_writes_it_is_read_whole() -> None:
    status = {
        "lastUpdated": "2026-01-01T00:00:00Z",
        "agent": {"birdV4": {"state": "Ready", "version": "v2", "routerID": "192.0.2.1", "lastBootTime": "x"}},
        "bgp": {
            "numberEstablishedV4": 1, "numberNotEstablishedV4": 0, "numberEstablishedV6": 0,
            "numberNotEstablishedV6": 0,
            "peersV4": [{"peerIP": "192.0.2.2", "type": "NodeMesh", "state": "Established", "since": "09:19:28"}],
            "peersV6": [],
        },
        "routes": {
            "routesV4": [
                {
                    "type": "FIB", "destination": "10.0.0.0/26", "gateway": "192.0.2.2", "interface": "eth0",
                    "learnedFrom": {"sourceType": "NodeMesh", "peerIP": "192.0.2.2"},
                }
            ]
        },
    }  # fmt: skip
    document = {
        "apiVersion": "projectcalico.org/v3", "kind": "CalicoNodeStatus", "metadata": {"name": "a"}, "spec": ASKED,
        "status": status,
    }  # fmt: skip
    value = decode(STATUS, msgspec.json.encode(document))
    assert msgspec.json.decode(msgspec.json.encode(value.status)) == status


def node(**fields: Any) -> dict[str, Any]:
    return {"controllers": {"node": fields}}


TEMPLATE = "spec.controllers.node.hostEndpoint.templates[0]"
CONFIGURATIONS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("default", {"controllers": {}}, []),
    (
        "default",
        {
            "logSeverityScreen": "Info", "healthChecks": "Disabled", "prometheusMetricsPort": 0,
            "etcdV3CompactionPeriod": "10m", "debugProfilePort": 6060,
            "controllers": {
                "node": {
                    "reconcilerPeriod": "5m", "leakGracePeriod": "15m", "syncLabels": "Enabled",
                    "hostEndpoint": {
                        "autoCreate": "Enabled", "createDefaultHostEndpoint": "Disabled",
                        "templates": [
                            {
                                "generateName": "eth", "interfacePattern": "^eth[0-9]+$", "labels": {"a": "b"},
                                "interfaceCIDRs": ["192.0.2.0/24", "192.0.2.1"], "nodeSelector": "has(a)",
                            }
                        ],
                    },
                },
                "policy": {"reconcilerPeriod": "5m"}, "workloadEndpoint": {"reconcilerPeriod": "5m"},
                "serviceAccount": {"reconcilerPeriod": "5m"}, "namespace": {"reconcilerPeriod": "5m"},
                "loadBalancer": {"assignIPs": "RequestedServicesOnly"}, "policyMigration": {"enabled": "Disabled"},
            },
        },
        [],
    ),
    ("other", {"controllers": {}}, ["metadata.name: 'other': only one object is read; name it default"]),
    (
        "default",
        {"controllers": {}, "prometheusMetricsPort": 65536, "debugProfilePort": -1},
        [
            "spec.prometheusMetricsPort: 65536: is no port; write 0 to 65535",
            "spec.debugProfilePort: -1: is no port; write 0 to 65535",
        ],
    ),
    (
        "default",
        {
            "etcdV3CompactionPeriod": "often",
            "controllers": {name: {"reconcilerPeriod": "5"} for name in ("node", "policy", "namespace")},
        },
        [
            "spec.etcdV3CompactionPeriod: 'often': is not a duration; write 90s, 1m30s, 1.5h or 300ms",
            *(
                f"spec.controllers.{name}.reconcilerPeriod: '5': is not a duration; write 90s, 1m30s, 1.5h or 300ms"
                for name in ("node", "policy", "namespace")
            ),
        ],
    ),
    (
        "default",
        node(leakGracePeriod="-15m"),
        ["spec.controllers.node.leakGracePeriod: '-15m': is less than nothing; write 0s or more"],
    ),
    (
        "default",
        node(hostEndpoint={"templates": [{"generateName": "Eth", "labels": {"a": "!"}, "nodeSelector": "a ="}]}),
        [
            f"{TEMPLATE}.generateName: 'Eth': can't be a name; lower-case letters, digits, dashes, dots; a letter or"
            " digit at both ends",
            f"{TEMPLATE}.interfaceCIDRs: []: is empty, and so is interfacePattern: no interface is meant; set one of"
            " them, or both",
            f"{TEMPLATE}.labels[a]: '!': can't be the value of a label; letters, digits, -, _ and ., 63 at most, a"
            " letter or digit at both ends, or nothing at all",
            f"{TEMPLATE}.nodeSelector: 'a =': column 3: '=' begins no word, string or operator; see Calico's selector"
            " syntax",
        ],
    ),
    (
        "default",
        node(hostEndpoint={"templates": [{"interfaceCIDRs": ["eth0"], "interfacePattern": "eth("}]}),
        [
            f"{TEMPLATE}.interfaceCIDRs[0]: 'eth0': is neither an address nor a CIDR; write 192.0.2.0/24 or 192.0.2.1",
            f"{TEMPLATE}.interfacePattern: 'eth(': is no regular expression: missing ), unterminated subpattern at"
            " position 3; write it in RE2's syntax: ^eth[0-9]+$",
        ],
    ),
    (
        "default",
        node(hostEndpoint={"templates": [{"interfacePattern": "(?!eth0)eth."}]}),
        [
            f"{TEMPLATE}.interfacePattern: '(?!eth0)eth.': looks around or back, which RE2 can't; write it in RE2's"
            " syntax: ^eth[0-9]+$"
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "spec", "problems"), CONFIGURATIONS, ids=[f"{row[0]} {str(row[1])[:70]}" for row in CONFIGURATIONS]
)
def test_controllers(name: str, spec: dict[str, Any], problems: list[str]) -> None:
    assert said(CONTROLLERS, made(CONTROLLERS, spec, name)) == problems


UNREADABLE = [
    ({}, r"spec\.controllers: '': is missing"),
    ({"controllers": {}, "logSeverityScreen": "Trace"}, r"spec\.logSeverityScreen: 'Trace': Invalid enum value"),
    (node(syncLabels="Maybe"), r"spec\.controllers\.node\.syncLabels: 'Maybe': Invalid enum value"),
    (
        {"controllers": {"loadBalancer": {"assignIPs": "None"}}},
        r"spec\.controllers\.loadBalancer\.assignIPs: 'None': Invalid enum value",
    ),
]


@pytest.mark.parametrize(("spec", "said"), UNREADABLE, ids=[str(row[0])[:80] for row in UNREADABLE])
def test_unreadable_controllers(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        made(CONTROLLERS, spec, "default")
