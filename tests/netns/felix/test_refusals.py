"""What the kernel refuses: named, closed where it would be a hole, alone in its trouble, tried again ever more seldom,
healed by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from calipy.felix.calc.change import Change, NodeState
from calipy.felix.dataplane import Refused
from calipy.felix.objects import Owner
from calipy.felix.plans import Plan
from calipy.felix.rules import names
from calipy.felix.rules.compile import RulesPlanner
from calipy.felix.rules.values import Chain, Jump, Rule
from calipy.model.origins import Origin

A, B, BAD = "10.244.0.1", "10.244.0.2", "10.244.0.3"
NOWHERE = {names.chain("cali-nowhere"): Chain((Rule((), Jump("there-is-none"), Origin("test")),))}


class Impossible(RulesPlanner):
    """Gives the endpoint default/bad, as long as it is `on`, a chain that no kernel takes."""

    on = True

    def plans(self, change: Change, state: NodeState) -> Iterator[Plan | None]:
        return (self._spoil(plan) if plan is not None else None for plan in super().plans(change, state))

    def plan(self, owner: Owner, state: NodeState) -> Plan:
        return self._spoil(super().plan(owner, state))

    def _spoil(self, plan: Plan) -> Plan:
        if self.on and plan.owner.name == "k8s/default/bad/eth0" and plan.objects:
            return Plan(plan.owner, {**plan.objects, **NOWHERE})
        return plan


@pytest.fixture
async def n1(felix: Any) -> Any:
    node = await felix("n1")
    node.planner = node.engine.areas[0].planner = Impossible()
    return node


def table(node: Any) -> str:
    return str(node.host.run("nft", "-s", "list", "table", "inet", "calipy"))


async def test_one_impossible_endpoint_is_closed_and_holds_up_nobody(n1: Any, wire: Any) -> None:
    await n1.add("a", A)
    await n1.add("b", B)
    bad = n1.endpoint("bad", BAD)
    with pytest.raises(
        Refused, match=r"endpoint k8s/default/bad/eth0: the kernel refuses chain cali-nowhere: No such file"
    ):
        await asyncio.wait_for(n1.engine.endpoints.add(bad), 5)
    pods = {name: pod.namespace for name, pod in n1.pods.items()}
    pods["bad"] = n1.plug(bad).namespace
    await n1.until(lambda: f"{BAD} dev calibad" in n1.host.run("ip", "route"))
    assert wire.passes(wire.mouth(pods["a"], A), wire.ear(pods["b"], B))
    assert wire.dropped(wire.mouth(pods["bad"], BAD), wire.ear(pods["b"], B)), "closed"
    assert wire.dropped(wire.mouth(pods["a"], A), wire.ear(pods["bad"], BAD)), "closed"
    assert '"calibad" : goto cali-fw-calibad' in table(n1)
    late = await n1.add("late", "10.244.0.4")
    assert wire.passes(wire.mouth(late.namespace, "10.244.0.4"), wire.ear(pods["b"], B)), "others still land"
    n1.planner.on = False
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert wire.passes(wire.mouth(pods["bad"], BAD), wire.ear(pods["b"], B)), "healed by itself"
    assert wire.passes(wire.mouth(pods["a"], A), wire.ear(pods["bad"], BAD))


async def test_many_at_once_one_of_them_impossible(n1: Any) -> None:
    n1.engine.endpoints.restore(
        [n1.endpoint("bad", BAD), *(n1.endpoint(f"x{number}", f"10.244.1.{number}") for number in range(1, 100))]
    )
    await n1.until(lambda: "calix99" in table(n1))
    assert set(n1.engine.dataplane.refused) == {Owner("endpoint", "k8s/default/bad/eth0")}
    assert "cali-nowhere" not in table(n1)


async def test_a_refused_endpoint_is_retried_alone_and_ever_more_seldom(n1: Any) -> None:
    with pytest.raises(Refused):
        await asyncio.wait_for(n1.engine.endpoints.add(n1.endpoint("bad", BAD)), 5)
    compiled, reads = n1.planner.compiled, n1.counters()["nftables"][0]
    await asyncio.sleep(1.5)
    attempts = n1.planner.compiled - compiled
    assert 2 <= attempts <= 4, "0.1, 0.2, 0.4, 0.8 s: and nobody else is compiled"
    assert n1.counters()["nftables"][0] == reads
    n1.planner.on = False


async def test_a_refused_endpoint_that_is_deleted_is_gone(n1: Any) -> None:
    bad = n1.endpoint("bad", BAD)
    with pytest.raises(Refused):
        await asyncio.wait_for(n1.engine.endpoints.add(bad), 5)
    await asyncio.wait_for(n1.engine.endpoints.remove(bad.id, bad.container_id), 5)
    assert not n1.engine.dataplane.refused
    assert "calibad" not in table(n1)


async def test_a_refused_route_is_retried_ever_more_seldom_and_heals(felix: Any, world: Any) -> None:
    node = await felix("n1")
    await node.configure(deviceRouteSourceAddress="10.9.0.77")
    pod = node.plug(node.endpoint("a", A, "fd00:10::1"))
    adding = asyncio.get_running_loop().create_task(node.engine.endpoints.add(pod.endpoint))
    await node.put(world.pool("four", "10.244.0.0/16"), world.block("n1", "10.244.0.0/26"))
    await adding
    with pytest.raises(Refused, match=r"route 254 10\.244\.0\.1/32 1024.*Invalid"):
        await asyncio.wait_for(node.engine.endpoints.routed(pod.endpoint), 5)
    assert "10.244.0.1/32" in node.engine.endpoints.refusal(pod.endpoint.id)
    shown = node.host.run("ip", "route") + node.host.run("ip", "-6", "route")
    assert "blackhole 10.244.0.0/26" in shown, "its neighbours are not held up"
    assert "fd00:10::1 dev calia" in shown
    before = node.counters()["routes"][1]
    await asyncio.sleep(1.5)
    assert 2 <= node.counters()["routes"][1] - before <= 4
    node.host.run("ip", "addr", "add", "10.9.0.77/32", "dev", "lo")
    await node.until(lambda: "10.244.0.1 dev calia" in node.host.run("ip", "route"), seconds=4)
    assert not node.engine.dataplane.refused


async def test_a_full_set_is_named_and_lands_when_it_fits(felix: Any, world: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    host.run("nft", "add table inet calipy; add set inet calipy cali40-all-hosts-net { type ipv4_addr; size 2; }")
    nodes = [world.node(f"n{number}", f"10.9.0.{number}/24") for number in (1, 2, 3)]
    node = await felix("n1", host, nodes, own_table=False)
    (refused,) = node.engine.dataplane.refused.items()
    assert refused[0] == Owner("set", "all-hosts-net/4")
    assert "cali40-all-hosts-net" in refused[1]
    await node.add("a", A)
    assert "cali-fw-calia" in table(node), "nobody else is held up"
    await node.gone("Node", "n3")
    await node.until(lambda: not node.engine.dataplane.refused)
    listed = host.run("nft", "list", "set", "inet", "calipy", "cali40-all-hosts-net")
    assert "10.9.0.1, 10.9.0.2" in listed
