"""An agent with the rights and the environment of manifests/ alone, before a real API server: it may do all it does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from calipy.explain.report import NodeReport
from calipy.netlink.socket import inside
from tests.cluster.control_plane import ApiServer
from tests.cluster.gate import keep
from tests.netns.test_agent_cni import CALIPY, Node, folder_of_a_test, sweep, until
from tests.unit.test_manifests import CONTAINERS, MANIFESTS, environment

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
OBJECTS = """
{kind: Node, apiVersion: v1, metadata: {name: n1}, spec: {podCIDR: 10.123.7.0/24, podCIDRs: [10.123.7.0/24]}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: shop}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: default, namespace: shop}}
---
{kind: Pod, apiVersion: v1, metadata: {name: a, namespace: shop},
 spec: {nodeName: n1, containers: [{name: main, image: x}]}}
"""


def listening(node: Node, host: str, port: int) -> socket.socket:
    """On the machine."""
    with open(f"/proc/{node.machine.pid}/ns/net") as namespace, inside(namespace.fileno()):
        return socket.create_server((host, port))


@pytest.fixture
def swept() -> None:
    """What a test run left whose process is gone is away."""
    sweep()


@pytest.fixture
async def node(api_server: ApiServer, swept: None) -> AsyncIterator[Node]:
    """A machine that reaches the API server by the very address that this host does."""
    url = urlsplit(api_server.url)
    with folder_of_a_test() as folder:
        made = Node(folder)
        try:
            await made.boot()
            listener = listening(made, str(url.hostname), int(url.port or 0))
            async with asyncio.TaskGroup() as group:
                gate = group.create_task(keep(listener, os.getpid(), str(url.hostname), int(url.port or 0)))
                yield made
                gate.cancel()
        finally:
            await made.stop()


def kubeconfig(api: ApiServer) -> str:
    """As the DaemonSet's pods are known to the server."""
    token = api.kubectl("-n", "kube-system", "create", "token", "calipy-node", check=True).stdout.strip()
    cluster = {"server": api.url, "certificate-authority-data": base64.b64encode(api.ca.read_bytes()).decode()}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "calipy",
        "clusters": [{"name": "calipy", "cluster": cluster}],
        "users": [{"name": "calipy-node", "user": {"token": token}}],
        "contexts": [{"name": "calipy", "context": {"cluster": "calipy", "user": "calipy-node"}}],
    }  # fmt: skip
    return json.dumps(document)


async def test_an_agent_may_do_all_that_it_does(api_server: ApiServer, node: Node) -> None:
    api_server.kubectl("apply", "--server-side", "-k", str(MANIFESTS), check=True)
    path = node.folder / "objects.yaml"
    path.write_text(OBJECTS)
    api_server.kubectl("apply", "-f", str(path), check=True)

    def get(kind: str, name: str) -> Any:
        return json.loads(api_server.kubectl("-n", "shop", "get", kind, name, "-o", "json", check=True).stdout)

    variables = {
        **environment(CONTAINERS["agent"]), "NODENAME": "n1", "NAMESPACE": "kube-system", "PATH": PATH,
        "KUBECONFIG": "/var/lib/calico/kubeconfig", "CALIPY_SYSCTL_ROOT": "/proc/sys/net",
        "CALIPY_LOG_LEVEL": "debug",
    }  # fmt: skip
    (node.state / "kubeconfig").write_text(kubeconfig(api_server))
    await node.machine.spawn("agent", (*CALIPY, "agent"), variables, restart=False)
    try:
        await node.ready()
    finally:
        print(node.agent.log.read_text()[-6000:])
        if await node.status_or_none() is None:
            print(await node.ask("status", NodeReport))
    assert get("ippool", "default-ipv4-ippool")["spec"]["cidr"] == "10.123.7.0/24"
    (address,) = (await node.add("a")).addresses
    notes = get("pod", "a")["metadata"]["annotations"]
    assert notes["cni.projectcalico.org/podIPs"] == f"{address}/32"
    await node.delete("a")
    assert get("pod", "a")["metadata"]["annotations"]["cni.projectcalico.org/podIPs"] == ""

    async def reported() -> bool:
        return bool(api_server.kubectl("get", "nodereport", "n1", "-o", "jsonpath={.status}").stdout)

    async def available() -> bool:
        conditions = get("node", "n1")["status"].get("conditions", [])
        return ("NetworkUnavailable", "False") in {(each["type"], each["status"]) for each in conditions}

    async def unavailable() -> bool:
        return "CalIPyIsDown" in {each["reason"] for each in get("node", "n1")["status"]["conditions"]}

    await until(reported, "the node's report")
    await until(available, "the node's condition")
    assert get("node", "n1")["metadata"]["annotations"]["projectcalico.org/IPv4Address"] == "10.99.0.1/24"
    await node.agent.signal(signal.SIGTERM)
    await until(unavailable, "an agent that ends says so")
    said = node.agent.log.read_text()
    assert [line for line in said.splitlines() if "forbidden" in line.lower() or " ERROR " in line] == []
