"""Two agents with their sidecars: what BGP learns reaches the FIB, and stays there whoever dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from calipy.bgp.sidecar import liveness_command
from calipy.datastore.sqlite import SQLiteStore
from calipy.explain import query
from calipy.explain.report import NodeReport
from calipy.lab.executions import execute
from calipy.lab.machines import Machine
from calipy.lab.processes import Liveness
from calipy.resources import block_affinities
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec
from calipy.resources.metadata import ObjectMeta

POOL, HOLD_S = "10.244.0.0/16", 9
RUN = "/run/calipy"


class Node:
    """A machine with an agent and a sidecar."""

    def __init__(self, number: int, folder: Path) -> None:
        self.address = f"10.9.0.{number}"
        self.block = f"10.244.{number}.0/26"
        self.run = folder / f"run{number}"
        binds = {"/var/lib/calipy": folder / "store", "/var/lib/calico": folder / f"state{number}", RUN: self.run}
        self.machine = Machine(f"n{number}", folder / f"n{number}", binds)
        self.changes: list[str] = []

    async def start(self) -> None:
        environment = {
            **os.environ,
            "NODENAME": self.machine.name,
            "IP": self.address,
            "CALIPY_BGP_HOLD_TIME": str(HOLD_S),
            "CALICO_IPV4POOL_CIDR": POOL,
        }
        calipy = (sys.executable, "-m", "calipy")
        self.agent = await self.machine.spawn("agent", [*calipy, "agent"], environment)
        alive = Liveness(liveness_command(Path(RUN)), 1.0, 1.0, 2)
        self.sidecar = await self.machine.spawn("bgp", [*calipy, "bgp"], environment, liveness=alive)

    def watch(self) -> None:
        """Takes note of what happens to routes inside the pool."""
        self.monitor = subprocess.Popen(
            self.machine.inside("ip", "-o", "monitor", "route"), stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.monitor.stdout is not None
        os.set_blocking(self.monitor.stdout.fileno(), False)

    def look(self) -> list[str]:
        """Changes so far of routes that BGP brought."""
        assert self.monitor.stdout is not None
        lines = (self.monitor.stdout.read() or b"").decode().splitlines()
        self.changes += [line.strip() for line in lines if "10.244." in line and "proto bird" in line]
        return self.changes

    async def learned(self) -> set[str]:
        shown = await self.machine.run("ip", "route", "show", "proto", "bird")
        return {line.split()[0] for line in shown.text.splitlines()}

    async def report(self) -> NodeReport:
        return await query.ask(self.run / "query.sock", "status", NodeReport)

    async def session_is_up(self) -> bool:
        try:
            sessions = (await self.report()).sessions
        except query.Unanswered:
            return False
        return bool(sessions) and all(session.state == "up" and session.received for session in sessions)

    async def off(self) -> None:
        await self.machine.power_cut()
        if hasattr(self, "monitor"):
            self.monitor.kill()
            self.monitor.wait()
            assert self.monitor.stdout is not None
            self.monitor.stdout.close()


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    first, second = Node(1, tmp_path), Node(2, tmp_path)
    try:
        for node in (first, second):
            await node.machine.start()
        ends = [str(node.machine.pid) for node in (first, second)]
        link = ("ip", "link", "add", "eth0", "netns", ends[0], "type", "veth", "peer", "name", "eth0", "netns", ends[1])
        assert (await execute(link)).status == 0
        for node in (first, second):
            await node.machine.run("ip", "address", "add", f"{node.address}/24", "dev", "eth0")
            await node.machine.run("ip", "link", "set", "eth0", "up")
            node.watch()
        for node in (first, second):
            await node.start()
        yield first, second
    finally:
        for node in (first, second):
            await node.off()


async def until(true: Callable[[], Awaitable[object]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await true():  # noqa: ASYNC110 (what is awaited happens in other processes)
            await asyncio.sleep(0.1)


async def claim(folder: Path, node: Node, block: str) -> None:
    """What the allocator does once a pod needs an address."""
    name = f"{node.machine.name}-{block.replace('.', '-').replace('/', '-')}"
    spec = BlockAffinitySpec(cidr=block, node=node.machine.name, state="confirmed", type="host")
    store = await SQLiteStore.open(folder / "store" / "datastore.sqlite3")
    await store.create(block_affinities.KIND, BlockAffinity(metadata=ObjectMeta(name=name), spec=spec))
    await store.close()


async def test_routes_reach_the_fib_and_outlive_agent_and_exabgp(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    first, second = nodes

    async def both_have(count: int) -> bool:
        return len(await first.learned()) == len(await second.learned()) == count

    async def both_up() -> bool:
        return await first.session_is_up() and await second.session_is_up()

    await until(lambda: _all_sessions(nodes))
    for node in nodes:
        await claim(tmp_path, node, node.block)
    await until(lambda: both_have(1))
    assert await first.learned() == {second.block}
    assert await second.learned() == {first.block}
    await until(both_up)
    assert (await first.report()).problems == {}
    quiet = first.look(), second.look()

    await first.agent.kill()
    await until(lambda: _restarted(first.agent))
    await until(both_up)
    await first.sidecar.kill()
    await until(lambda: _restarted(first.sidecar))
    await until(both_up)
    # It goes the same way as all that came before it.
    await claim(tmp_path, second, "10.244.2.64/26")
    await until(lambda: both_have_news(first))
    assert first.look()[len(quiet[0]) :] == [f"10.244.2.64/26 via {second.address} dev eth0 proto bird metric 1024"]
    assert second.look()[len(quiet[1]) :] == []


async def both_have_news(node: Node) -> bool:
    return "10.244.2.64/26" in await node.learned()


async def _restarted(process: object) -> bool:
    status = await process.status()  # type: ignore[attr-defined]
    return bool(status.restarts and status.pid)


async def _all_sessions(nodes: tuple[Node, ...]) -> bool:
    try:
        reports = [await node.report() for node in nodes]
    except query.Unanswered:
        return False
    return all(report.sessions and report.sessions[0].state == "up" for report in reports)
