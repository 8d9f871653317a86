"""What one pod more or less costs the node: no kernel read, no other owner compiled. And what its link is kept in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


async def test_a_pod_that_comes_and_goes_reads_nothing_and_compiles_itself(felix: Any) -> None:
    node = await felix("n1")
    await node.add("a", "10.244.0.1", "fd00:10::1")
    await node.settled()
    compiled, reads = node.engine.planner.compiled, {name: found[0] for name, found in node.counters().items()}
    dumps = node.engine.monitor.dumps
    await node.add("b", "10.244.0.2", "fd00:10::2")
    await node.settled()
    assert node.engine.planner.compiled - compiled == 1
    index = node.pods["b"].index
    await node.delete("b")
    await node.until(lambda: index not in node.engine.monitor.links)
    await asyncio.sleep(0.3)
    assert node.engine.planner.compiled - compiled == 2
    assert {name: found[0] for name, found in node.counters().items()} == reads
    assert node.engine.monitor.dumps == dumps
    assert not node.repairs


@pytest.mark.parametrize(
    "command",
    [
        "ip link set calia down",
        "ip link set calia down; ip link set calia up",
        "ip addr del fe80::ecee:eeff:feee:eeee/128 dev calia",
    ],
    ids=["set down", "set down and up again", "its gateway address taken"],
)  # fmt: skip
async def test_what_others_do_to_a_pods_link_is_put_right_and_counted(felix: Any, command: str) -> None:
    node = await felix("n1")
    await node.configure(defaultEndpointToHostAction="Accept")
    await node.add("a", "10.244.0.1", "fd00:10::1")
    node.host.run("sh", "-c", command)
    await node.until(lambda: node.repairs, seconds=1)

    def whole() -> bool:
        routes = node.host.run("ip", "-4", "route") + node.host.run("ip", "-6", "route")
        gateway = node.host.run("ip", "addr", "show", "dev", "calia")
        return "10.244.0.1 dev calia" in routes and "fd00:10::1 dev calia" in routes and "fe80::ecee" in gateway

    await node.until(whole, seconds=1)
    assert node.pods["a"].namespace.run("ping", "-c1", "-W1", "fe80::ecee:eeff:feee:eeee%eth0")


async def test_a_pod_whose_namespace_dies_is_no_foreign_change(felix: Any) -> None:
    node = await felix("n1")
    pod = await node.add("a", "10.244.0.1", "fd00:10::1")
    node.host.run("ip", "link", "del", "calia")
    await node.until(lambda: pod.index not in node.engine.monitor.links)
    await asyncio.sleep(0.3)
    assert not node.repairs
    assert not node.engine.dataplane.refused
