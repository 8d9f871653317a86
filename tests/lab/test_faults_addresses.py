"""Addresses under stress: no address twice, none leaked, nothing left, whatever is killed while pods come and go; and
no open flow to a deleted pod reaches the next holder of its address."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from calipy.explain.report import EndpointReport
from calipy.ipam import snapshot
from calipy.ipam.judge import judge
from calipy.lab.cluster import together
from calipy.lab.runner import CniFailure
from calipy.resources import ipam_blocks, ipam_handles, pods

NODES = ("n1", "n2", "n3")
LIVES = int(os.environ.get("CALIPY_TEST_LIVES", "200"))
AT_ONCE = 30
LIVES_A_KILL = 20
TRY_AGAIN = 11
_PATIENCE_S = 60.0


class Life:
    """One sandbox from its first ADD to its last DEL."""

    def __init__(self, world, number, seed):
        self.world, self.random = world, random.Random(seed)
        self.node = self.random.choice(NODES)
        self.id = f"{number:04d}" + f"{self.random.getrandbits(200):050x}"
        self.netns = f"life-{number}"
        self.arguments = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": f"life-{number}"}
        self.addresses = ()

    @property
    def machine(self):
        return self.world.lab.machines[self.node]

    @property
    def runtime(self):
        return self.world.runtimes[self.node]

    @property
    def path(self):
        return f"/run/netns/{self.netns}"

    async def live(self):
        await self.machine.make_netns(self.netns)
        await self.add()
        for _ in range(self.random.randrange(4)):
            await self.random.choice((self.add, self.check, self.delete, self.killed_add, self.collect))()
        await self.random.choices((self.end, self.end_without_netns, self.be_forgotten), (6, 2, 2))[0]()

    async def persist(self, verb: str, call: Callable[[], Awaitable[object]]):
        """Tries again as long as the agent is away; each other failure is one."""
        end_s = time.monotonic() + _PATIENCE_S
        while True:
            self.world.done[verb] += 1
            try:
                return await call()
            except CniFailure as failure:
                if failure.code != TRY_AGAIN or time.monotonic() > end_s:
                    raise
                self.world.done["try again"] += 1
            await asyncio.sleep(0.05)

    def ask_add(self):
        return self.runtime.add(self.id, self.path, args=self.arguments)

    async def add(self):
        added = await self.persist("ADD", self.ask_add)
        assert not self.addresses or added.addresses == self.addresses, "another address than before"
        self.addresses = added.addresses
        self.world.hold(self)

    async def killed_add(self):
        """The runtime dies with the plug-in at work."""
        try:
            async with asyncio.timeout(self.random.uniform(0.001, 0.05)):
                await self.add()
        except TimeoutError:
            self.world.done["ADD killed"] += 1

    async def check(self):
        if self.addresses:
            await self.persist("CHECK", lambda: self.runtime.check(self.id, self.path, args=self.arguments))

    async def delete(self, path: str | None = None):
        self.world.let_go(self)
        await self.persist(
            "DEL", lambda: self.runtime.delete(self.id, self.path if path is None else path, args=self.arguments)
        )
        self.addresses = ()

    async def collect(self):
        await self.persist("GC", lambda: self.runtime.gc(self.world.valid()))

    async def end(self):
        for _ in range(self.random.randrange(1, 3)):
            await self.delete()
        await self.machine.delete_netns(self.netns)
        self.world.alive.discard(self.id)

    async def end_without_netns(self):
        """The namespace is gone first, its link with it."""
        await self.machine.delete_netns(self.netns)
        await self.delete(self.random.choice(("", self.path)))
        self.world.alive.discard(self.id)

    async def be_forgotten(self):
        """The runtime loses its memory of the sandbox: GC is to find it."""
        self.world.let_go(self)
        await self.machine.delete_netns(self.netns)
        for kept in (self.world.lab.folder / self.node / "cache" / "results").glob(f"*{self.id}*"):
            kept.unlink()
        self.world.alive.discard(self.id)
        self.world.done["forgotten"] += 1


class World:
    """All lives."""

    def __init__(self, lab, seed):
        self.lab = lab
        self.runtimes = {name: lab.runtime(name) for name in NODES}
        self.lives = [Life(self, number, f"{seed}-{number}") for number in range(LIVES)]
        self.alive = {life.id for life in self.lives}
        self.holders: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        self.ended = 0

    def valid(self):
        """Attachments that a GC is to spare: of all that are not over, also those to come."""
        return [(container_id, "eth0") for container_id in sorted(self.alive)]

    def hold(self, life):
        for address in life.addresses:
            holder = self.holders.setdefault(address, life.id)
            assert holder == life.id, f"{address} was given to {life.id}, and {holder} has it"

    def let_go(self, life):
        for address in life.addresses:
            self.holders.pop(address, None)

    async def run(self):
        waiting = iter(self.lives)

        async def work():
            for life in waiting:
                await life.live()
                self.ended += 1
                if self.ended % LIVES_A_KILL == 0:
                    self.done["agents killed"] += 1
                    await self.lab.kill(life.node, "agent")

        await together(work() for _ in range(AT_ONCE))
        for name in NODES:
            await self.lab.ready(name)
            await self.runtimes[name].gc(())


async def traces(lab, name):
    """What is left of pods on a node."""
    machine = lab.machines[name]
    links = json.loads((await machine.run("ip", "-j", "link")).text)
    routes = [
        (await machine.run("ip", family, "-o", "route", "show", "proto", "80", "type", "unicast")).text
        for family in ("-4", "-6")
    ]
    table = (await machine.run("nft", "list", "table", "inet", "calipy")).text
    state = lab.folder / name / "state"
    found = {
        "links": [link["ifname"] for link in links if link["ifname"].startswith("cali")],
        "routes": "".join(routes),
        "rules": [line for line in table.splitlines() if '"cali' in line and "cali*" not in line],
        "endpoints": await lab.ask(name, "endpoints", tuple[EndpointReport, ...]),
        "records": [path.name for path in (state / "attachments").iterdir()],
        "namespaces": (await machine.run("ip", "netns", "list")).text,
        "results": [path.name for path in (lab.folder / name / "cache" / "results").iterdir()],
    }
    return {what: left for what, left in found.items() if left}


async def left_in_store(lab):
    async with lab.store() as store:
        verdict = judge(await snapshot.read(store), time.time())
        handles = [item.value.spec.handle_id async for page in store.list(ipam_handles.KIND) for item in page.items]
        kept = [item.value.metadata.name async for page in store.list(pods.KIND) for item in page.items]
        blocks = [
            item.value.spec.cidr
            async for page in store.list(ipam_blocks.KIND)
            for item in page.items
            if any(entry is not None for entry in item.value.spec.allocations)
        ]
    found = {"findings": verdict.findings, "handles": handles, "pods": kept, "blocks": blocks}
    return {what: left for what, left in found.items() if left}


async def test_pods_come_and_go_while_everything_is_killed_and_nothing_is_left(cluster):
    lab = await cluster()
    seed = os.environ.get("CALIPY_TEST_SEED") or f"{random.getrandbits(32):x}"
    world = World(lab, seed)
    start_s = time.monotonic()

    await world.run()

    print(f"seed {seed}: {LIVES} lives in {time.monotonic() - start_s:.1f} s: {dict(world.done)}")
    assert world.holders == {}
    assert {name: await traces(lab, name) for name in NODES} == dict.fromkeys(NODES, {})
    assert await left_in_store(lab) == {}
