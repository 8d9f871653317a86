"""Agents and ExaBGP killed under traffic: no packet lost, none on another way, no kernel write where all was right.

A thousand datagrams a second on three pairs (same node, same segment, routed), fifty on all others; each is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest

from calipy.explain.report import NodeReport
from calipy.lab.waiting import eventually, together
from tests.lab.probing import Echo, Findings, Probe, build
from tests.lab.watching import ROUTES, TABLES, Watch, watching

NODES = ("n1", "n2", "n3")
RESTARTS = int(os.environ.get("CALIPY_TEST_RESTARTS", "20"))
FAST = {("n1-a", "n1-b"), ("n1-a", "n2-a"), ("n1-a", "n3-a")}
FAST_HZ, SLOW_HZ = 1000, 50


@pytest.fixture(scope="module")
def prober(tmp_path_factory):
    return build(tmp_path_factory.mktemp("prober"))


class Traffic:
    """All pods send to all others, in both families; those of a fast pair by IPv4."""

    def __init__(self, lab, pods, prober):
        self.lab, self.pods, self.prober = lab, pods, prober
        self.found: dict[str, Findings] = {}
        self.stall_ms = 0.0

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Traffic for as long as the context lasts; what became of it is in `found` afterwards."""
        with contextlib.ExitStack() as stack:
            for pod in self.pods:
                for address in pod.addresses:
                    stack.enter_context(Echo(self.inside(pod), self.prober, address))
            probes = [stack.enter_context(self.probe(pod, rate)) for pod, rate in self.senders()]
            yield
            for probe in probes:
                report = probe.stop()
                self.found |= report.pairs
                self.stall_ms = max(self.stall_ms, report.stall_ms)

    def senders(self):
        return [*((pod, SLOW_HZ) for pod in self.pods), *((pod, FAST_HZ) for pod in self.pods if self.pairs(pod, True))]

    def probe(self, pod, rate):
        return Probe(self.inside(pod), self.prober, self.pairs(pod, rate == FAST_HZ), rate_hz=rate)

    def pairs(self, pod, fast):
        """Name -> address."""
        return {
            f"{pod.name}>{other.name}{'/6' if ':' in address else ''}": address
            for other in self.pods if other != pod
            for address in other.addresses
            if fast == (":" not in address and (pod.name, other.name) in FAST)
        }  # fmt: skip

    def inside(self, pod) -> Callable[[Sequence[str]], subprocess.Popen[bytes]]:
        netns = f"/proc/{self.lab.machines[pod.node].pid}/root{pod.netns_path}"

        def start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
            return subprocess.Popen(["nsenter", f"--net={netns}", *argv], stdout=subprocess.PIPE)

        return start

    def complaints(self) -> list[str]:
        """What went wrong: nothing may be lost, late, refused or on another way."""
        return [
            f"{name}: {found} (the prober stood still for {self.stall_ms:g} ms at most)"
            for name, found in self.found.items()
            if found.lost or found.errors or found.ttl_changes or not found.received
            or len(found.ttls_there) != 1 or len(found.ttls_back) != 1
        ]  # fmt: skip


async def pods_and_traffic(lab, prober):
    pods = await together(lab.add(f"{node}-{letter}", node) for node in NODES for letter in "ab")
    await lab.rest()
    await lab.told_all(*NODES)
    return Traffic(lab, pods, prober)


@contextlib.asynccontextmanager
async def all_watched(lab, monitor) -> AsyncIterator[dict[str, Watch]]:
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(watching(lab.machines[name], monitor)) for name in NODES}


async def killed_and_back(lab, part):
    """Kills a process of each node, all at once, and waits until all is as before."""
    before = {name: await lab.machines[name].process(part).status() for name in NODES}
    await together(lab.kill(name, part) for name in NODES)

    async def another(name):
        return (await lab.machines[name].process(part).status()).restarts == before[name].restarts + 1

    await together(eventually(lambda name=name: another(name), f"{name}: {part} is started again") for name in NODES)
    await together(lab.ready(name) for name in NODES)
    await together(lab.sessions_up(name) for name in NODES)
    await lab.told_all(*NODES)


async def test_agents_are_killed_under_traffic_and_nothing_is_lost_or_written(cluster, prober):
    lab = await cluster()
    traffic = await pods_and_traffic(lab, prober)
    rounds = -(-RESTARTS // len(NODES))
    async with all_watched(lab, ROUTES) as routes, all_watched(lab, TABLES) as tables:
        start_s = time.monotonic()
        with traffic.flowing():
            for _ in range(rounds):
                await killed_and_back(lab, "agent")
                for name in NODES:
                    report = await lab.ask(name, "status", NodeReport)
                    assert {driver.driver: driver.operations for driver in report.drivers if driver.operations} == {}
                    assert report.repairs == {}
        lasted_s = time.monotonic() - start_s

        assert traffic.complaints() == []
        assert {name: await seen.changes() for name, seen in routes.items()} == dict.fromkeys(NODES, [])
        # The message that takes ownership of the table, and no other.
        taken = dict.fromkeys(NODES, ["add table inet calipy"] * rounds)
        assert {name: await seen.changes() for name, seen in tables.items()} == taken

    with traffic.flowing():  # as long, without a fault: what would be lost here would be the prober's doing
        await asyncio.sleep(lasted_s)
    assert traffic.complaints() == []


async def test_sidecars_are_killed_under_traffic_and_nothing_is_lost(cluster, prober):
    lab = await cluster()
    traffic = await pods_and_traffic(lab, prober)
    async with all_watched(lab, ROUTES) as routes:
        with traffic.flowing():
            for _ in range(2):
                await killed_and_back(lab, "bgp")

        assert traffic.complaints() == []
        assert {name: await seen.changes() for name, seen in routes.items()} == dict.fromkeys(NODES, [])
