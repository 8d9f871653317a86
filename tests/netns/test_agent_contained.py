"""An agent as its container runs it: two capabilities, a root file system and a /proc/sys that are read only, and the
host's /proc/sys/net in another place."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calipy.explain import query
from calipy.explain.report import NodeReport
from calipy.lab.cni_failures import CniFailure
from tests.netns.test_agent_cni import CALIPY, ENVIRONMENT, Node, folder_of_a_test, sweep, until

ROOT = "/run/host/proc/sys/net"
CAPABILITIES = "net_admin", "sys_admin"
"""Those of the DaemonSet's container; a test of the manifests holds them equal."""
VARIABLES = {
    "CALIPY_SYSCTL_ROOT": ROOT,
    "CALIPY_BGP_DIR": "/run/calipy-bgp",
    "FELIX_HEALTHENABLED": "true",
    "TMPDIR": "/run/agent-tmp",
}
CONTAINER = f"""
set -e
mkdir -p {ROOT} /run/agent-tmp
mount --bind /proc/sys/net {ROOT}
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount -o remount,ro,bind /
exec setpriv --bounding-set=-all,{{capabilities}} --inh-caps=-all -- {shlex.join((*CALIPY, "agent"))}
"""


def log_of(node: Node) -> str:
    return Path(node.machine.folder, "agent.log").read_text()


async def contained(node: Node, *capabilities: str) -> None:
    """Starts the agent."""
    script = CONTAINER.format(capabilities=",".join(f"+{name}" for name in capabilities))
    command = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
    await node.machine.spawn("agent", command, {**ENVIRONMENT, **VARIABLES})


@pytest.fixture
def swept() -> None:
    """What a test run left whose process is gone is away."""
    sweep()


@pytest.fixture
async def node(swept: None) -> AsyncIterator[Node]:
    with folder_of_a_test() as folder:
        made = Node(folder)
        try:
            await made.boot()
            yield made
        finally:
            await made.stop()


async def test_pods_come_and_go(node: Node) -> None:
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        await node.run("sh", "-c", f"echo 0 >/proc/sys/net/{setting}")
    await contained(node, *CAPABILITIES)
    await node.ready()
    await node.run(*CALIPY, "health", "--felix-ready", "--felix-live", "--bgp-ready", "--bgp-live")
    first, second = await node.add("a"), await node.add("b")
    await node.check("a")
    for address in second.addresses:
        assert await node.pings("a", address), (first, second)
        assert await node.pings("", address)
    link = next(
        found["ifname"] for found in json.loads(await node.run("ip", "-j", "link")) if "cali" in found["ifname"]
    )
    settings = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", f"ipv4/conf/{link}/route_localnet")
    read = f"cat {' '.join(f'/proc/sys/net/{setting}' for setting in settings)}"
    assert (await node.run("sh", "-c", read)).split() == ["1", "1", "1"]
    inside = "ip netns exec a cat /proc/sys/net/ipv4/ip_forward"
    assert (await node.run(*inside.split())).strip() == "0", "a pod's settings are the pod's"
    for name in ("a", "b"):
        await node.delete(name)
    assert await node.left() == {}
    assert [line for line in log_of(node).splitlines() if "ERROR" in line or "Read-only" in line] == []


async def test_each_capability_is_needed(node: Node) -> None:
    await contained(node, "net_admin")
    await node.ready()
    with pytest.raises(CniFailure, match="Operation not permitted"):
        await node.add("a")
    await node.agent.stop()
    await contained(node, "sys_admin")
    obstacle = "Operation not permitted"

    async def told() -> bool:
        try:
            return obstacle in (await node.ask("status", NodeReport)).obstacle
        except query.Unanswered:
            return obstacle in log_of(node)

    await until(told, "the kernel's refusal is told")
