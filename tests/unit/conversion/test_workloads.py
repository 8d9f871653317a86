"""Workloads and network sets as a selector sees them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from calipy.conversion import workloads
from calipy.conversion.network_sets import network_set
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.selectables import NamedPort, Selectable
from calipy.resources import global_network_sets, network_sets
from calipy.resources.namespaces import Namespace
from calipy.resources.pods import Pod
from calipy.resources.service_accounts import ServiceAccount
from tests.unit.resources.objects import made

LONG = "a" * 63


def pod(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **labels: str) -> Pod:
    document = {
        "metadata": {"name": "web", "namespace": "shop", "labels": labels},
        "spec": {"nodeName": "n2", **(spec or {})},
        "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]} if status is None else status,
    }
    return msgspec.convert(document, Pod)


# labels, service account -> labels, profiles
LABELS: list[tuple[dict[str, str], str, dict[str, str], tuple[str, ...]]] = [
    ({}, "", {}, ("kns.shop",)),
    ({"app": "web"}, "r", {"app": "web", "projectcalico.org/serviceaccount": "r"}, ("kns.shop", "ksa.shop.r")),
    ({}, LONG, {}, ("kns.shop", f"ksa.shop.{LONG}")),
    ({}, LONG[1:], {"projectcalico.org/serviceaccount": LONG[1:]}, ("kns.shop", f"ksa.shop.{LONG[1:]}")),
    ({"projectcalico.org/namespace": "forged", "projectcalico.org/orchestrator": "forged"}, "", {}, ("kns.shop",)),
]  # fmt: skip
OF_A_POD = {"projectcalico.org/namespace": "shop", "projectcalico.org/orchestrator": "k8s"}


@pytest.mark.parametrize(("own", "account", "labels", "profiles"), LABELS)
def test_labels_and_profiles_of_a_pod(
    own: dict[str, str], account: str, labels: dict[str, str], profiles: tuple[str, ...]
) -> None:
    found = workloads.pod(pod({"serviceAccountName": account}, **own))
    assert found.labels == {**OF_A_POD, **labels}
    assert found.profiles == profiles


# what a pod is like -> its addresses
ADDRESSES: list[tuple[str, Pod, tuple[str, ...]]] = [
    ("running", pod(), ("10.0.0.1", "fd00::1")),
    ("without an address yet", pod(status={}), ()),
    ("on its host's network", pod({"hostNetwork": True}), ()),
    ("without a node", pod({"nodeName": ""}), ()),
    ("succeeded", pod(status={"phase": "Succeeded", "podIP": "10.0.0.1"}), ()),
    ("failed", pod(status={"phase": "Failed", "podIP": "10.0.0.1"}), ()),
]


@pytest.mark.parametrize(("found", "nets"), [row[1:] for row in ADDRESSES], ids=[row[0] for row in ADDRESSES])
def test_addresses_of_a_pod(found: Pod, nets: tuple[str, ...]) -> None:
    assert workloads.pod(found).nets == nets


def test_named_ports_of_all_containers() -> None:
    spec = {
        "containers": [
            {"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "name": "dns", "protocol": "UDP"}]},
            {"ports": [{"containerPort": 81, "name": "http"}, {"containerPort": 9}]},
        ],
        "initContainers": [{"ports": [{"containerPort": 7, "name": "warm", "protocol": "SCTP"}]}],
    }
    assert workloads.pod(pod(spec)).ports == (
        NamedPort("http", 6, 80), NamedPort("dns", 17, 53), NamedPort("http", 6, 81), NamedPort("warm", 132, 7),
    )  # fmt: skip


def endpoint(orchestrator: str, **more: Any) -> WorkloadEndpoint:
    id_ = EndpointId(orchestrator, "shop/web", "eth0")
    return WorkloadEndpoint(id=id_, container_id="c", interface="cali1", addresses=("10.0.0.9",), **more)


def test_a_workload_of_this_node_has_what_cni_gave_it() -> None:
    http = NamedPort("http", 6, 80)
    found = endpoint("k8s", namespace="shop", labels={"app": "web"}, service_account="robot", ports=(http,))
    assert workloads.endpoint(found, finished=False) == Selectable(
        labels={**OF_A_POD, "app": "web", "projectcalico.org/serviceaccount": "robot"},
        profiles=("kns.shop", "ksa.shop.robot"),
        nets=("10.0.0.9",),
        ports=(http,),
    )
    assert workloads.endpoint(found, finished=True).nets == ()


def test_a_workload_that_is_no_pod() -> None:
    assert workloads.endpoint(endpoint("cni"), finished=False) == Selectable(
        labels={"projectcalico.org/orchestrator": "cni"},
        profiles=("projectcalico-default-allow",),
        nets=("10.0.0.9",),
    )


def test_what_a_namespace_and_a_service_account_hand_down() -> None:
    labels = {"team": "a", "projectcalico.org/name": "forged"}
    namespace = msgspec.convert({"metadata": {"name": "shop", "labels": labels}}, Namespace)
    account = msgspec.convert({"metadata": {"name": "robot", "namespace": "shop", "labels": labels}}, ServiceAccount)
    assert workloads.namespace_labels("shop", namespace) == {"pcns.team": "a", "pcns.projectcalico.org/name": "shop"}
    assert workloads.account_labels("robot", account) == {"pcsa.team": "a", "pcsa.projectcalico.org/name": "robot"}
    assert workloads.namespace_labels("shop", None) == {"pcns.projectcalico.org/name": "shop"}
    assert workloads.account_labels("robot", None) == {"pcsa.projectcalico.org/name": "robot"}


def test_network_sets() -> None:
    nets = ["10.0.0.1", "10.0.0.1/32", "10.1.2.3/8", "FD00::1/128", "fd00::/64"]
    shared = made(global_network_sets.KIND, {"nets": nets}, "bad", labels={"threat": "known"})
    assert network_set(shared) == Selectable(
        labels={"threat": "known"}, nets=("10.0.0.1", "10.0.0.0/8", "fd00::1", "fd00::/64")
    )
    own = made(network_sets.KIND, {"nets": nets[:1]}, "bad", namespace="shop", labels={"threat": "known"})
    assert network_set(own) == Selectable(
        labels={"threat": "known", "projectcalico.org/namespace": "shop"}, profiles=("kns.shop",), nets=("10.0.0.1",)
    )
