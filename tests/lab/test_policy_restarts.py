"""Agents killed and started under traffic, while policies change and while they don't, with a table left and without
one: what policy forbids never passes, and what it allows is never lost where a table of ours is there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec import Struct

from calipy.explain.report import NodeReport
from calipy.lab.waiting import eventually, together
from calipy.resources import pods
from calipy.resources.metadata import Key
from tests.effort import at_effort
from tests.lab.churning import PORTS, Churn
from tests.lab.probing import build
from tests.lab.watching import TABLES, watching
from tests.lab.witnessing import (
    DECIDED_WITHIN_NS,
    Attached,
    Flow,
    History,
    Judge,
    Judgement,
    Stage,
    Told,
    flow_of,
    following,
    stage,
    target,
)

NODES = ("n1", "n2")
RESTARTS = at_effort(quick=2, whole=6, long=60)
RATE_HZ = 500
SERVERS = {"n1": "x", "n2": "y"}
CLIENTS = {("n1", "red"): "a", ("n1", "blue"): "a", ("n2", "red"): "b", ("n2", "blue"): "b"}


@pytest.fixture(scope="module")
def prober(tmp_path_factory):
    return build(tmp_path_factory.mktemp("prober"))


class Fate(Struct, frozen=True):
    """What became of a packet, and what should have."""

    told: Told
    flow: Flow
    came: int | None
    found: Judgement

    def __str__(self) -> str:
        return f"{self.flow.sender.key} to {self.told.target} at {self.told.before}, came {self.came}: {self.found}"


class Play:
    """Servers that hear, clients that tell, the same all the time."""

    def __init__(self, lab, store, history: History, on: Stage, churn: Churn) -> None:
        self.lab, self.store, self.history, self.on, self.churn = lab, store, history, on, churn
        self.servers: dict[str, tuple[Attached, str, int]] = {}
        self.clients: list[tuple[Attached, str]] = []
        self.fates: list[Fate] = []

    async def enter(self) -> None:
        """All pods, with policy in force."""
        for node, zone in SERVERS.items():
            pod, netns = await self._pod(f"server-{node}", node, role="server", zone=zone)
            await self.on.hear(netns, pod.addresses, PORTS)
            for address, port in itertools.product(pod.addresses, PORTS):
                self.servers[f"{node}/{address}/{port}"] = (pod, address, port)
        for (node, colour), team in CLIENTS.items():
            self.clients.append(await self._pod(f"{colour}-{node}", node, role="client", colour=colour, team=team))
        await self.churn.begin()
        await self.caught_up()

    async def _pod(self, name: str, node: str, **labels: str) -> tuple[Attached, str]:
        made = await self.lab.add(name, node, **labels)
        revision = (await self.store.get(pods.KIND, made.name, made.namespace)).revision
        key = Key(pods.KIND.name, made.name, made.namespace)
        return Attached(key, node, made.addresses, revision), self.on.netns(node, made.netns_path)

    async def caught_up(self) -> None:
        """All nodes hold all that is stored."""

        async def all_told() -> bool:
            return all(map(self.history.caught_up, NODES))

        await eventually(all_told, "the nodes' programmed revisions")

    @contextlib.asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Clients tell for as long as the context lasts; what became of it is in `fates` once hearers are closed."""
        where = {name: target(address, port) for name, (_, address, port) in self.servers.items()}
        tellers = [(pod, await self.on.tell(netns, where, RATE_HZ)) for pod, netns in self.clients]
        yield
        told = [(pod, number, await self.on.told(number)) for pod, number in tellers]
        await self.caught_up()
        await self.on.close()
        judge = Judge(self.history)
        for pod, number, lines in told:
            self.fates += (self._fate(judge, pod, number, line) for line in lines)

    def _fate(self, judge: Judge, pod: Attached, number: int, told: Told) -> Fate:
        flow = flow_of(pod, *self.servers[told.target])
        came = self.on.heard.get((number, told.number))
        return Fate(told, flow, came, judge.judge(flow, told.before, came or told.after + DECIDED_WITHIN_NS))

    def complaints(self) -> list[str]:
        """What passed and may not, and what was lost."""
        wrong = [fate for fate in self.fates if fate.found == ("forbidden" if fate.came else "allowed")]
        return [str(fate) for fate in wrong]

    def tally(self) -> dict[str, int]:
        """How many of each judgement."""
        found = [fate.found for fate in self.fates]
        return {judgement: found.count(judgement) for judgement in ("forbidden", "allowed", "undecided")}

    async def killed_and_back(self, names=NODES) -> None:
        """Kills agents, all at once, and waits until all is as before."""
        before = {name: (await self.lab.machines[name].process("agent").status()).restarts for name in names}
        await together(self.lab.kill(name, "agent") for name in names)

        async def another(name):
            return (await self.lab.machines[name].process("agent").status()).restarts == before[name] + 1

        await together(eventually(lambda name=name: another(name), f"{name}: its agent is back") for name in names)
        await together(self.lab.ready(name) for name in names)


@contextlib.asynccontextmanager
async def playing(lab, prober) -> AsyncIterator[Play]:
    async with lab.store() as store, following(lab, store, NODES) as history, stage(lab, prober) as on:
        play = Play(lab, store, history, on, Churn(history, seed=2, every_s=0.15))
        await play.enter()
        yield play


async def test_agents_are_killed_with_policy_in_force_and_nothing_is_lost_leaked_or_written(cluster, prober):
    lab = await cluster(count=2)
    async with playing(lab, prober) as play, contextlib.AsyncExitStack() as stack:
        seen = {name: await stack.enter_async_context(watching(lab.machines[name], TABLES)) for name in NODES}
        async with play.telling():
            for _ in range(RESTARTS):
                await play.killed_and_back()
                for name in NODES:
                    report = await lab.ask(name, "status", NodeReport)
                    assert {driver.driver: driver.operations for driver in report.drivers if driver.operations} == {}
                    assert (report.repairs, report.refused) == ({}, {})
        taken = dict.fromkeys(NODES, ["add table inet calipy"] * RESTARTS)
        assert {name: await watch.changes() for name, watch in seen.items()} == taken

    assert play.complaints() == []
    tally = play.tally()
    assert tally["undecided"] == 0
    assert min(tally["forbidden"], tally["allowed"]) > 500 * RESTARTS, tally


async def test_agents_are_killed_while_policies_change_and_nothing_is_lost_or_leaked(cluster, prober):
    lab = await cluster(count=2)
    async with playing(lab, prober) as play, play.telling(), asyncio.TaskGroup() as group:
        for pod, _ in play.clients:
            play.churn.relabelled[pod.key] = play.churn.client
        changing = group.create_task(play.churn.run())
        for _ in range(RESTARTS):
            await play.killed_and_back()
        changing.cancel()

    assert play.complaints() == []
    tally = play.tally()
    print(f"{play.churn.writes} changes, {RESTARTS} restarts of each: {tally}")
    assert min(tally["forbidden"], tally["allowed"]) > 100 * RESTARTS, tally


def runs(fates: list[Fate]) -> Iterator[tuple[bool, list[Fate]]]:
    """Packets of one flow in a row that came, or didn't."""
    ordered = sorted(fates, key=lambda fate: fate.told.before)
    for came, group in itertools.groupby(ordered, key=lambda fate: fate.came is not None):
        yield came, list(group)


async def test_an_agent_without_a_table_closes_its_pods_first_and_opens_them_once_it_knows(cluster, prober):
    lab = await cluster(count=2)
    machine = lab.machines["n1"]
    async with playing(lab, prober) as play, watching(machine, TABLES) as seen:
        async with play.telling():
            await machine.process("agent").stop()
            await machine.run("nft", "delete", "table", "inet", "calipy")
            await seen.changes()
            began = time.monotonic_ns()
            await lab.start_part("n1", "agent")
            await lab.ready("n1")
            ready = time.monotonic_ns()
        written = await seen.changes()

    first_lines = written[: next(n for n, line in enumerate(written) if "add set" in line or "add map" in line)]
    assert sum("not in sync yet" in line for line in first_lines) == 3, first_lines
    assert not any("cali-" in line for line in first_lines), first_lines

    here = [fate for fate in play.fates if fate.flow.receiver.node == "n1"]
    shut: list[int] = []
    for (client, _), name in itertools.product(play.clients, play.servers):
        mine = [f for f in here if f.flow.sender == client and f.told.target == name and f.told.before > began]
        if not mine:
            continue
        steps = list(runs(mine))
        passed = [came for came, _ in steps]
        if {fate.found for fate in mine} == {"forbidden"}:  # open until it is closed for good
            assert passed == [True, False], (str(mine[0]), passed)
        else:  # open, closed until all is known, open
            assert passed == [True, False, True], (str(mine[0]), passed)
            assert steps[2][1][0].told.before < ready
        shut.append(steps[1][1][0].told.before)
    print(
        f"closed {(max(shut) - began) / 1e6:.0f} ms, ready {(ready - began) / 1e6:.0f} ms after its start was ordered"
    )
    assert len(shut) == len(CLIENTS) * len(PORTS) * 2
    assert max(shut) < ready
