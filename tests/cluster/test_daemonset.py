"""CalIPy on a real cluster, of manifests/: what its agents tell Kubernetes, what policy lets through, what is left when
pods go, and that the agents may do all that they try."""

from __future__ import annotations

import asyncio
import io
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from calipy.lab.executions import execute
from calipy.lab.waiting import eventually
from tests.cluster.cluster import Cluster
from tests.cluster.images import AGNHOST

ROOT = Path(__file__).parents[2]
FAMILIES = pytest.mark.parametrize("family", [4, 6])
NAMESPACE = "guarded"
PODS = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {AGNHOST}
        imagePullPolicy: Never
        args: [netexec, --http-port=8080]
        readinessProbe: {{httpGet: {{path: /hostname, port: 8080}}, periodSeconds: 1, failureThreshold: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {NAMESPACE}}}
spec: {{ipFamilyPolicy: PreferDualStack, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""
CLIENT = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{role: {name}}}}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: "{image}", imagePullPolicy: Never, args: [pause]}}]
"""
CLIENTS = "".join(CLIENT.format(name=name, namespace=NAMESPACE, image=AGNHOST) for name in ("friend", "stranger"))
DENY = f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: default-deny, namespace: {NAMESPACE}}}
spec: {{podSelector: {{}}, policyTypes: [Ingress]}}
"""
ALLOW = f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: friends, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{role: friend}}}}}}], ports: [{{port: 8080}}]}}]
"""


class Address(msgspec.Struct):
    """Of a pod's status."""

    ip: str


class Status(msgspec.Struct, rename="camel"):
    """A pod's."""

    pod_ips: list[Address] = msgspec.field(name="podIPs")


class Spec(msgspec.Struct, rename="camel"):
    """A pod's."""

    node_name: str


class Pod(msgspec.Struct):
    """A pod as kubectl shows it."""

    spec: Spec
    status: Status


class Pods(msgspec.Struct):
    """A list of them."""

    items: list[Pod]


@pytest.fixture(scope="module")
def restarts(calipy_cluster: Cluster) -> str:
    """How often the agents had been started again before: the cluster is shared, and others cut nodes' power."""
    return asyncio.run(_restarts(calipy_cluster))


async def _restarts(cluster: Cluster) -> str:
    counts = "{range .items[*]}{.spec.nodeName}={.status.containerStatuses[*].restartCount} {end}"
    pods = ("-n", "kube-system", "get", "pods", "-l", "k8s-app=calipy-node", "-o", f"jsonpath={counts}")
    return (await cluster.kubectl(*pods)).text


@pytest.fixture(scope="module")
def pods(calipy_cluster: Cluster, restarts: str) -> Iterator[dict[str, list[str]]]:
    """A web server on each node: node -> addresses, IPv4 first. In their namespace are two clients besides, on n1."""
    yield asyncio.run(_pods(calipy_cluster))
    asyncio.run(calipy_cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found"))


async def _pods(cluster: Cluster) -> dict[str, list[str]]:
    await cluster.apply(PODS)
    await cluster.wait("serviceaccount/default", "create", f"--namespace={NAMESPACE}")
    await cluster.apply(CLIENTS)
    await cluster.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset/web", "--timeout=60s")
    await cluster.wait("pod --all", "condition=Ready", f"--namespace={NAMESPACE}")
    found = (await cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", "app=web", "-o", "json")).stdout
    items = msgspec.json.decode(found, type=Pods).items
    return {pod.spec.node_name: [address.ip for address in pod.status.pod_ips] for pod in items}


async def _reaches(cluster: Cluster, client: str, address: str, port: int = 8080) -> bool:
    host = f"[{address}]" if ":" in address else address
    curl = ("curl", "-g", "-s", "-o", "/dev/null", "-m", "2", f"http://{host}:{port}/hostname")
    done = await cluster.exec(client, *curl, namespace=NAMESPACE, check=False)
    assert done.status in (0, 28), done.complaint  # answered, or nothing came within the time
    return done.status == 0


async def _reached(cluster: Cluster, client: str, pods: dict[str, list[str]], family: int) -> set[str]:
    index = 0 if family == 4 else 1
    asked = [(node, _reaches(cluster, client, addresses[index])) for node, addresses in pods.items()]
    answers = await asyncio.gather(*(question for _, question in asked))
    return {node for (node, _), answer in zip(asked, answers, strict=True) if answer}


async def _ctl(cluster: Cluster, *arguments: str) -> str:
    """What `pycalicoctl` prints on this host."""
    argv = (str(ROOT / ".venv/bin/pycalicoctl"), "--kubeconfig", str(cluster.kubeconfig), *arguments)
    done = await execute(argv, timeout_s=60.0)
    assert done.status == 0, f"{shlex.join(argv)}: {done.text}{done.complaint}"
    return done.text


async def test_a_node_says_that_its_network_is_there(calipy_cluster: Cluster) -> None:
    condition = "{range .items[*]}{.status.conditions[?(@.type=='NetworkUnavailable')].status} {end}"
    found = (await calipy_cluster.kubectl("get", "nodes", "-o", f"jsonpath={condition}")).text
    assert found.split() == ["False"] * 3
    annotation = r"{range .items[*]}{.metadata.annotations.projectcalico\.org/IPv4Address} {end}"
    found = (await calipy_cluster.kubectl("get", "nodes", "-o", f"jsonpath={annotation}")).text
    assert found.split() == ["10.9.1.11/24", "10.9.1.12/24", "10.9.2.13/24"]


async def test_every_pod_has_an_address_of_its_nodes_blocks(
    calipy_cluster: Cluster, pods: dict[str, list[str]]
) -> None:
    assert set(pods) == {"n1", "n2", "n3"}
    assert all(len(addresses) == 2 for addresses in pods.values())
    show = await asyncio.gather(*(_ctl(calipy_cluster, "ipam", "show", f"--ip={each}") for each, _ in pods.values()))
    assert all(f"node: {node}" in text.replace('"', "").lower() for node, text in zip(pods, show, strict=True)), show


@FAMILIES
async def test_policy_closes_pods_and_opens_them_to_those_that_it_names(
    calipy_cluster: Cluster, pods: dict[str, list[str]], family: int
) -> None:
    cluster, nodes = calipy_cluster, set(pods)

    async def all_open() -> bool:
        return await _reached(cluster, "stranger", pods, family) == nodes

    # A neighbour entry from before a node's power was cut has to grow old first.
    await eventually(all_open, "pods without policy answer", 20)
    await cluster.apply(DENY)
    await _in_force(cluster, "default-deny")
    for client in ("friend", "stranger"):
        assert await _reached(cluster, client, pods, family) == set()
    await cluster.apply(ALLOW)
    await _in_force(cluster, "friends")
    assert await _reached(cluster, "friend", pods, family) == nodes
    assert await _reached(cluster, "stranger", pods, family) == set()
    service = await cluster.kubectl(
        "-n", NAMESPACE, "get", "service", "web", "-o", f"jsonpath={{.spec.clusterIPs[{int(family == 6)}]}}"
    )
    assert await _reaches(cluster, "friend", service.text, 80)
    assert not await _reaches(cluster, "stranger", service.text, 80)
    await cluster.kubectl(
        "-n", NAMESPACE, "rollout", "status", "daemonset/web", "--timeout=5s"
    )  # kubelet's probes pass
    await cluster.kubectl("-n", NAMESPACE, "delete", "networkpolicy", "--all")
    await eventually(all_open, "pods without policy answer again", 20)


async def _in_force(cluster: Cluster, name: str) -> None:
    await _ctl(cluster, "wait", f"kubernetesnetworkpolicy/{name}", "-n", NAMESPACE, "--for", "programmed")


async def test_pycalicoctl_shows_what_is_there(calipy_cluster: Cluster, pods: dict[str, list[str]]) -> None:
    shown = await _ctl(calipy_cluster, "get", "nodes,ippools,ipamblocks")
    assert {"n1", "n2", "n3", "default-ipv4-ippool", "10.244.0.0/16", "default-ipv6-ippool"} <= set(shown.split())
    assert all(f"host:{node}" in shown for node in pods)


async def test_nothing_is_left_of_pods_that_are_gone(calipy_cluster: Cluster, pods: dict[str, list[str]]) -> None:
    cluster = calipy_cluster
    before = int(_allocations(await _ctl(cluster, "ipam", "check")))
    await cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
    checked = await _ctl(cluster, "ipam", "check")
    assert "found 0 problems" in checked
    gone = len(pods) + 2
    assert int(_allocations(checked)) == before - 2 * gone


def _allocations(text: str) -> str:
    return text.partition("IPAM blocks record ")[2].partition(" ")[0]


async def test_agents_are_never_refused_and_never_restarted(calipy_cluster: Cluster, restarts: str) -> None:
    logs = [
        log
        for node in calipy_cluster.nodes
        for log in calipy_cluster.disk(node, "/var/log/pods").glob("kube-system_calipy-node-*/*/*.log")
    ]
    assert logs
    told = [line for log in logs for line in io.StringIO(log.read_text()) if " WARNING " in line or " ERROR " in line]
    assert [line for line in told if "403" in line] == []
    assert await _restarts(calipy_cluster) == restarts
