"""An agent killed between any two of its netlink messages: the table is as before the change or as after it, never
between, and the next agent puts it right. Here is the agent, too: a dataplane in a process of its own that dies."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from calipy.felix.calc import whole
from calipy.felix.calc.change import NodeState, difference
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import World
from calipy.felix.drivers.nftables import NftablesDriver
from calipy.felix.guard import guard
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.netlink.socket import NETFILTER, NetlinkSocket
from calipy.resources import ip_pools, network_policies, pods
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Key, ObjectMeta, Resource
from calipy.resources.network_policies import NetworkPolicy, NetworkPolicySpec
from calipy.resources.pods import Pod, PodAddress, PodSpec, PodStatus
from calipy.resources.policy_rules import EntityRule, Rule
from tests.netns.test_dataplane import Node

KILLED = 9
NODE = "n1"
NAMES = ("a", "b", "c")


class _Place(Struct, frozen=True):
    """A network namespace, as `Node` wants it."""

    fd: int


def world(step: int) -> NodeState:
    """Step 0: two policies, of which one names a set; 1: another set, other rules, another policy, other pods."""
    labels = {name: {"app": "web" if number <= step else "client"} for number, name in enumerate(NAMES)}
    resources: list[tuple[Any, Resource]] = [
        (ip_pools.KIND, IPPool(metadata=ObjectMeta(name="four"), spec=IPPoolSpec(cidr="10.244.0.0/16")))
    ]
    for number, name in enumerate(NAMES):
        address = f"10.244.0.{number + 1}"
        status = PodStatus(phase="Running", pod_ip=address, pod_ips=(PodAddress(ip=address),))
        metadata = ObjectMeta(name=name, namespace="default", labels=labels[name])
        resources.append((pods.KIND, Pod(metadata=metadata, spec=PodSpec(node_name=NODE), status=status)))
    rules = (Rule(action="Allow", source=EntityRule(selector="app == 'client'" if step == 0 else "has(app)")),)
    specs = {"web": NetworkPolicySpec(selector="app == 'web'", types=("Ingress",), ingress=rules)}
    specs["deny" if step else "open"] = NetworkPolicySpec(
        selector="all()", types=("Egress",), egress=(Rule(action="Deny" if step else "Allow"),)
    )
    for name, spec in specs.items():
        metadata = ObjectMeta(name=name, namespace="default")
        resources.append((network_policies.KIND, NetworkPolicy(metadata=metadata, spec=spec)))
    endpoints = [
        WorkloadEndpoint(
            id=EndpointId("k8s", f"default/{name}", "eth0"), container_id=name, interface=f"cali{name}",
            addresses=(f"10.244.0.{number + 1}",), namespace="default", pod=name, labels=labels[name],
        )
        for number, name in enumerate(NAMES)
    ]  # fmt: skip
    return whole.compute(
        World(
            node=NODE,
            resources={
                Key(kind.name, value.metadata.name, value.metadata.namespace): value for kind, value in resources
            },
            attachments={endpoint.id: endpoint for endpoint in endpoints},
        )
    )


async def become(namespace: Any, steps: tuple[int, ...]) -> None:
    """One agent, from its start through these steps to its end."""
    with ThreadPoolExecutor(1, "kernel") as thread:
        node = Node(namespace, thread)
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(node.dataplane.run())
                for step in steps:
                    await node.become(world(step))
                await node.dataplane.idle()
                running.cancel()
        finally:
            node.close()


def listed(namespace: Any) -> list[str]:
    """The table's chains as they are, its sets' words in any order; nothing where there is no table."""
    text = namespace.run("nft", "-s", "list", "table", "inet", "calipy", check=False)
    _, _, inner = text.partition("\n")  # its flags, and whose it is
    chunks = inner.rstrip().removesuffix("}").strip().split("\n\n")
    return sorted(
        chunk.strip() if chunk.strip().startswith("chain") else " ".join(sorted(chunk.replace(",", " ").split()))
        for chunk in chunks
    )


def killed(namespace: Any, what: str, moment: str, count: int) -> bool:
    """Runs `what` in a process that is killed before or after its message `count`; False if it ended before that."""
    argv = [sys.executable, "-m", "tests.netns.test_policy_killed", str(namespace.path), what, moment, str(count)]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], check=False, capture_output=True, text=True)
    assert done.returncode in (0, KILLED), done.stderr
    return done.returncode == KILLED


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_policy_change_is_whole_or_not_at_all(namespaces: Callable[[str], Any], moment: str) -> None:
    assert difference(world(0), world(1)).policies
    host = namespaces("host")
    await become(host, (1,))
    new = listed(host)
    await become(host, (0,))
    old = listed(host)
    assert old != new
    seen = []
    for count in itertools.count(1):
        if not killed(host, "change", moment, count):
            break
        found = listed(host)
        assert found in (old, new), f"killed {moment} message {count}: {found}"
        seen.append(found == new)
        await become(host, (1,))
        assert listed(host) == new
        await become(host, (0,))
        assert listed(host) == old
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert not seen[0]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_table_never_stands_without_its_skeleton(namespaces: Callable[[str], Any], moment: str) -> None:
    host = namespaces("host")
    seen = []
    for count in itertools.count(1):
        if not killed(host, "guard", moment, count):
            break
        found = "\n".join(listed(host))
        assert not found.strip() or found.count("not in sync yet") == 3, f"killed {moment} message {count}: {found}"
        seen.append(bool(found.strip()))
        if found.strip():
            host.run("nft", "delete", "table", "inet", "calipy")
    assert seen
    assert "\n".join(listed(host)).count("not in sync yet") == 3


BY_HAND = (
    "flush chain inet calipy cali-pi-np/default/web",
    "insert rule inet calipy cali-pi-np/default/web accept",
    "insert rule inet calipy filter-FORWARD accept",
    "add chain inet calipy cali-pi-np/default/mine",
    'delete element inet calipy cali-to-wl-dispatch-map { "calia" }',
    "flush set inet calipy {set}",
    "add element inet calipy {set} {{ 192.0.2.1 }}",
)


@pytest.mark.parametrize("command", BY_HAND)
async def test_what_others_changed_between_two_agents_is_put_right(
    namespaces: Callable[[str], Any], command: str
) -> None:
    host = namespaces("host")
    await become(host, (0,))
    right = listed(host)
    (name,) = {word for text in right for word in text.split() if text[:5] != "chain" and word.startswith("cali40-s-")}
    host.run("nft", command.format(set=name) if "{set}" in command else command)
    assert listed(host) != right
    await become(host, (0,))
    assert listed(host) == right


def _die_at(moment: str, count: int) -> None:
    """This process ends at its message `count`, as if it were killed."""
    whole_send, sent = NetlinkSocket._send, itertools.count(1)

    def send(self: NetlinkSocket, data: bytes, messages: int) -> None:
        last = next(sent) == count
        if last and moment == "before":
            os._exit(KILLED)
        whole_send(self, data, messages)
        if last:
            os._exit(KILLED)

    NetlinkSocket._send = send  # type: ignore[method-assign]


def main(netns: str, what: str, moment: str, count: str) -> None:
    """The process that dies."""
    place = _Place(os.open(netns, os.O_RDONLY))
    _die_at(moment, int(count))
    if what == "change":
        asyncio.run(become(place, (0, 1)))
        return
    driver = NftablesDriver(NetlinkSocket.open(NETFILTER, namespace=place.fd))
    guard(driver, FelixSettings())
    driver.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
