"""Pods that send from their first microsecond while policies and labels change: what policy forbids never passes, what
it allows passes on the same node from ADD's return on, and on other nodes as soon as they know the pod."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time

import pytest
from msgspec import Struct

from calipy.lab.pods import Sandbox
from calipy.lab.waiting import eventually, together
from calipy.resources import pods
from calipy.resources.metadata import Key, ObjectMeta
from calipy.resources.pods import Pod, PodSpec
from tests.effort import at_effort
from tests.lab.churning import PORTS, Churn
from tests.lab.probing import build
from tests.lab.witnessing import (
    DECIDED_WITHIN_NS,
    Attached,
    History,
    Judge,
    Stage,
    Told,
    flow_of,
    following,
    spread,
    stage,
    target,
)

NODE, OTHER = "n1", "n2"
STARTS = at_effort(quick=20, whole=200, long=2000)
AT_ONCE = 4
RATE_HZ = 200
LIVES_S = 0.15
"""For so long a pod sends after ADD's return; its labels change half-way."""


@pytest.fixture(scope="module")
def prober(tmp_path_factory):
    return build(tmp_path_factory.mktemp("prober"))


class Start(Struct, frozen=True):
    """A pod that came and went."""

    pod: Attached
    teller: int
    returned: int
    """When ADD had; CLOCK_MONOTONIC, nanoseconds."""
    told: list[Told]


class Target(Struct, frozen=True):
    """What is told to."""

    receiver: Attached
    address: str
    port: int


class Play:
    """Everybody on stage."""

    def __init__(self, lab, store, history: History, churn: Churn, stage: Stage) -> None:
        self.lab, self.store, self.history, self.churn, self.stage = lab, store, history, churn, stage
        self.targets: dict[str, Target] = {}
        self.starts: list[Start] = []
        self._numbers = itertools.count()

    async def receivers(self) -> None:
        """One on each node, whose labels change."""
        for node in (NODE, OTHER):
            made = await self.lab.add(f"server-{node}", node, **self.churn.server())
            key = Key(pods.KIND.name, made.name, made.namespace)
            revision = (await self.store.get(pods.KIND, made.name, made.namespace)).revision
            receiver = Attached(key, node, made.addresses, revision)
            await self.stage.hear(self.stage.netns(node, made.netns_path), made.addresses, PORTS)
            for address, port in itertools.product(made.addresses, PORTS):
                self.targets[f"{node}/{address}/{port}"] = Target(receiver, address, port)
            self.churn.relabelled[key] = self.churn.server

    async def caught_up(self) -> None:
        """Both nodes hold all that is stored."""

        async def all_told() -> bool:
            return all(map(self.history.caught_up, (NODE, OTHER)))

        await eventually(all_told, "the nodes' programmed revisions")

    async def start(self, number: int) -> None:
        """One pod's life."""
        machine, runtime = self.lab.machines[NODE], self.lab.runtime(NODE)
        pod = Sandbox(namespace="default", name=f"s{number}", node=NODE, container_id=f"{number:064x}")
        key = Key(pods.KIND.name, pod.name, pod.namespace)
        metadata = ObjectMeta(name=pod.name, namespace=pod.namespace, labels=self.churn.client())
        stored = await self.history.put(pods.KIND, Pod(metadata=metadata, spec=PodSpec(node_name=NODE)))
        await machine.make_netns(pod.netns)
        where = {name: target(each.address, each.port) for name, each in self.targets.items()}
        teller = await self.stage.tell(self.stage.netns(NODE, pod.netns_path), where, RATE_HZ)
        self.history.others_write(key)
        added = await runtime.add(pod.container_id, pod.netns_path, args=pod.arguments)
        returned = time.monotonic_ns()
        await asyncio.sleep(LIVES_S / 2)
        await self.history.relabel(key, self.churn.client())
        await asyncio.sleep(LIVES_S / 2)
        told = await self.stage.told(teller)
        attached = Attached(key, NODE, added.addresses, stored.revision)
        self.starts.append(Start(attached, teller, returned, told))
        self.history.others_write(key)
        await runtime.delete(pod.container_id, pod.netns_path, args=pod.arguments)
        await machine.delete_netns(pod.netns)
        await self.history.remove(pods.KIND, pod.name, pod.namespace)

    async def keep_starting(self) -> None:
        """One pod after the other, until there were enough."""
        while (number := next(self._numbers)) < STARTS:
            await self.start(number)


class Count:
    """What became of all packets, by what should have."""

    def __init__(self, play: Play) -> None:
        self.judge, self.targets, self.heard = Judge(play.history), play.targets, play.stage.heard
        self.tally = dict.fromkeys(itertools.product((NODE, OTHER), ("forbidden", "allowed", "undecided")), 0)
        self.leaked: list[str] = []
        self.refused: list[str] = []
        self.admitted_ms: list[float] = []
        self.early = 0
        for start in play.starts:
            self._packets(start)
            self._admissions(start)

    def _packets(self, start: Start) -> None:
        for told in start.told:
            there = self.targets[told.target]
            flow = flow_of(start.pod, there.receiver, there.address, there.port)
            came = self.heard.get((start.teller, told.number))
            found = self.judge.judge(flow, told.before, came or told.after + DECIDED_WITHIN_NS)
            self.tally[there.receiver.node, found] += 1
            early = told.before < start.returned
            self.early += early
            text = f"{start.pod.key} to {told.target}, {(told.before - start.returned) / 1e6:.3f} ms after ADD: {flow}"
            if found == "forbidden" and came is not None:
                self.leaked.append(text)
            if found == "allowed" and came is None and there.receiver.node == NODE and not early:
                self.refused.append(text)

    def _admissions(self, start: Start) -> None:
        """How long after ADD's return the other node has let the pod in: for each target that lets no stranger in, and
        that policy allowed all the time until then."""
        for name, there in self.targets.items():
            if there.receiver.node == NODE:
                continue
            flow = flow_of(start.pod, there.receiver, there.address, there.port)
            for told in start.told:
                if told.target != name or told.before < start.returned:
                    continue
                came = self.heard.get((start.teller, told.number))
                until = came or told.after + DECIDED_WITHIN_NS
                if self.judge.strangers_pass(flow, told.before, until):
                    break
                if self.judge.judge(flow, told.before, until, told=True) != "allowed":
                    break
                if came is not None:
                    self.admitted_ms.append((told.before - start.returned) / 1e6)
                    break


async def test_nothing_forbidden_passes_and_nothing_allowed_is_refused_from_the_first_packet_on(cluster, prober):
    lab = await cluster(count=2)
    async with lab.store() as store, following(lab, store, (NODE, OTHER)) as history, stage(lab, prober) as on:
        churn = Churn(history, seed=1)
        play = Play(lab, store, history, churn, on)
        await lab.delete(await lab.add("first", NODE))  # makes the Namespace
        await play.receivers()
        await churn.begin()
        await play.caught_up()
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            changing = group.create_task(churn.run())
            await together(play.keep_starting() for _ in range(AT_ONCE))
            changing.cancel()
        took_s = time.monotonic() - began_s
        await play.caught_up()
        await on.close()

    began_s = time.monotonic()
    count = Count(play)
    print(f"{len(play.starts)} starts and {churn.writes} changes in {took_s:.1f} s, judged in "
          f"{time.monotonic() - began_s:.1f} s; {count.early} packets before ADD's return: {count.tally}")  # fmt: skip
    print(f"ADD's return to admitted by {OTHER}, {len(count.admitted_ms)} times:")
    print(*spread(count.admitted_ms), sep="\n")
    if count.admitted_ms:
        print(f"p50 {statistics.median(count.admitted_ms):.1f} ms, worst {max(count.admitted_ms):.1f} ms")

    assert count.leaked == []
    assert count.refused == []
    for node, found in itertools.product((NODE, OTHER), ("forbidden", "allowed")):
        assert count.tally[node, found] > 5 * STARTS, (node, found)
    assert len(count.admitted_ms) > STARTS / 10
