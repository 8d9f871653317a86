"""Pods: when their addresses are no more their own, and what of them policy needs."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from calipy.resources.pods import KIND, POD_IP, ContainerPort
from tests.unit.resources.objects import made

DYING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
FINISHED: list[tuple[str, dict[str, Any], bool]] = [
    ("Running", {}, False),
    ("Pending", {"annotations": {POD_IP: ""}}, False),
    ("Running", {**DYING}, False),
    ("Running", {**DYING, "annotations": {POD_IP: "10.1.0.5/32"}}, False),
    ("Running", {**DYING, "annotations": {POD_IP: ""}}, True),
    ("Succeeded", {}, True),
    ("Failed", {"annotations": {POD_IP: "10.1.0.5/32"}}, True),
]


@pytest.mark.parametrize(("phase", "metadata", "finished"), FINISHED, ids=str)
def test_finished(phase: str, metadata: dict[str, Any], finished: bool) -> None:
    document = {"nodeName": "n1", "containers": []}
    pod = made(KIND, document, "web", namespace="one", **metadata)
    pod = structs.replace(pod, status=structs.replace(pod.status, phase=phase))
    assert pod.finished is finished


def test_what_policy_needs_of_a_pod() -> None:
    ports = [{"name": "http", "containerPort": 80}, {"containerPort": 53, "protocol": "UDP", "hostPort": 5353}]
    spec = {
        "serviceAccountName": "api", "hostNetwork": True,
        "containers": [{"name": "a", "image": "b", "ports": ports}],
        "initContainers": [{"name": "c", "ports": [{"containerPort": 1, "hostIP": "10.0.0.1"}]}],
    }  # fmt: skip
    pod = made(KIND, spec, "web", namespace="one", labels={"app": "web"})
    assert (pod.spec.service_account_name, pod.spec.host_network, pod.metadata.labels) == ("api", True, {"app": "web"})
    assert pod.spec.containers[0].ports == (
        ContainerPort(container_port=80, name="http"),
        ContainerPort(container_port=53, protocol="UDP", host_port=5353),
    )
    assert pod.spec.init_containers[0].ports == (ContainerPort(container_port=1, host_ip="10.0.0.1"),)
