"""Many processes that allocate on one store and are killed at random: the driver of `test_ipam_stress`, a program.

    ipam_stress.py STORE JOURNALS PROCESSES COUNT KILLS SEED

Each process is one node's allocator with a real mirror. It adds COUNT pods, takes some of them away again, and writes
into its journal what a runtime knows: ADD before a request, HAS with the addresses after it, DEL before a release, GONE
after it. A process that is killed is started anew; it first releases what its journal shows as unfinished. Printed at
the end: a line of JSON with the figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

from calipy.agent.feed import Feed, watched
from calipy.datastore.mirror import Mirror
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import StoreError
from calipy.ipam.allocator import Allocator, Request
from calipy.ipam.errors import IPAMError

LIVE = 7
"""So many pods a node has at once, about."""


class Journal:
    """One node's journal: what its runtime knows, in the order in which it happened."""

    def __init__(self, path: Path) -> None:
        self.state: dict[str, str] = {}
        self.addresses: dict[str, list[str]] = {}
        self.begun = 0
        self.figures: Counter[str] = Counter()
        for line in path.read_text().splitlines() if path.exists() else ():
            self._take(line.split())
        self._file = path.open("a")

    def note(self, word: str, name: str, *more: str) -> None:
        """One more line; a killed process has written it whole, or not at all."""
        os.write(self._file.fileno(), f"{word} {name} {' '.join(more)}\n".encode())
        self._take([word, name, *more])

    def _take(self, words: list[str]) -> None:
        word, name, *more = words
        if word == "FIGURE":
            self.figures[name] += int(more[0])
            return
        self.begun += word == "ADD"
        self.state[name] = word
        self.addresses[name] = more

    def of(self, *states: str) -> list[str]:
        """The pods in one of these states."""
        return [name for name, state in self.state.items() if state in states]


class FarAway:
    """The store, its answers to writes some milliseconds late: so that a kill often comes between two of them."""

    def __init__(self, store: SQLiteStore, chance: random.Random) -> None:
        self._store = store
        self._chance = chance

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def create(self, *arguments: object) -> object:
        return await self._late(self._store.create(*arguments))  # type: ignore[arg-type]

    async def update(self, *arguments: object) -> object:
        return await self._late(self._store.update(*arguments))  # type: ignore[arg-type]

    async def delete(self, *arguments: object) -> object:
        return await self._late(self._store.delete(*arguments))  # type: ignore[arg-type]

    async def _late(self, write: Awaitable[object]) -> object:
        answer = await write
        await asyncio.sleep(self._chance.uniform(0, 0.004))
        return answer


async def work(store_path: Path, journal: Journal, node: str, count: int, chance: random.Random) -> None:
    """One process's life."""
    store = await SQLiteStore.open(store_path, busy_limit_s=30)
    mirror = Mirror(store, watched())
    feed = Feed(mirror, node)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(mirror.run()), group.create_task(feed.run(lambda events: None))]
        await feed.in_sync.wait()
        allocator = Allocator(FarAway(store, chance), node, feed, time.time)  # type: ignore[arg-type]
        await patiently(allocator.adopt)
        for name in journal.of("ADD", "DEL"):
            await delete(allocator, journal, name)
        while journal.begun < count:
            many = min(chance.randint(1, 4), count - journal.begun)
            names = [f"{node}-{journal.begun + n}" for n in range(many)]
            await asyncio.gather(*(add(allocator, journal, node, name, chance) for name in names))
            while len(live := journal.of("HAS")) > LIVE or (live and chance.random() < 0.3):
                await delete(allocator, journal, chance.choice(live))
        journal.note("FIGURE", "conflicts", str(allocator.writer.conflicts))
        journal.note("FIGURE", "block_writes", str(allocator.writer.writes))
        for task in tasks:
            task.cancel()
    await store.close()


async def add(allocator: Allocator, journal: Journal, node: str, name: str, chance: random.Random) -> None:
    """ADD, as a runtime: one that fails is deleted."""
    families = chance.choice([{4: 1}, {4: 1, 6: 1}])
    attributes = {"node": node, "namespace": "default", "pod": name, "timestamp": str(time.time())}
    journal.note("ADD", name)
    try:
        given = await allocator.assign(Request(handle=f"net.{name}", attributes=attributes, families=families))
    except (IPAMError, StoreError):
        journal.note("FIGURE", "refused", "1")
        await delete(allocator, journal, name)
        return
    journal.note("HAS", name, *(assigned.address for assigned in given))


async def delete(allocator: Allocator, journal: Journal, name: str) -> None:
    """DEL, repeated until it succeeds."""
    journal.note("DEL", name)
    await patiently(lambda: allocator.release(f"net.{name}"))
    journal.note("GONE", name)


async def patiently(step: object) -> None:
    """Again and again while the store is overrun."""
    while True:
        try:
            await step()  # type: ignore[operator]
            return
        except StoreError:
            await asyncio.sleep(0.01)


class Driver:
    """Starts, kills and restarts the processes."""

    def __init__(self, store: Path, journals: Path, count: int, chance: random.Random) -> None:
        self._store, self._journals, self._count, self._chance = store, journals, count, chance
        self._running: dict[int, str] = {}

    def start(self, node: str) -> None:
        """One more life of a node's process."""
        seed = self._chance.random()
        pid = os.fork()
        if pid:
            self._running[pid] = node
            return
        status = 1
        try:
            journal = Journal(self._journals / node)
            asyncio.run(work(self._store, journal, node, self._count, random.Random(seed)))
            status = 0
        finally:
            os._exit(status)

    def run(self, nodes: list[str], kills: int) -> int:
        """How many were killed in the middle of their work. Raises RuntimeError where one fails by itself."""
        for node in nodes:
            self.start(node)
        killed = 0
        while self._running:
            if killed < kills:
                time.sleep(self._chance.uniform(0.005, 0.08))
                victim = self._chance.choice(list(self._running))
                os.kill(victim, signal.SIGKILL)
                pid, status = os.waitpid(victim, 0)
            else:
                pid, status = os.waitpid(-1, 0)
            node = self._running.pop(pid)
            if os.WIFSIGNALED(status):
                killed += 1
                self.start(node)
            elif status:
                self.stop()
                raise RuntimeError(f"the process of {node} failed; see its traceback")
        return killed

    def stop(self) -> None:
        """Ends all that still run."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def main() -> None:
    store, journals = Path(sys.argv[1]), Path(sys.argv[2])
    processes, count, kills, seed = map(int, sys.argv[3:])
    nodes = [f"n{n}" for n in range(processes)]
    begun = time.monotonic()
    killed = Driver(store, journals, count, random.Random(seed)).run(nodes, kills)
    seconds = time.monotonic() - begun
    figures: Counter[str] = Counter()
    for node in nodes:
        journal = Journal(journals / node)
        figures += journal.figures
        figures["begun"] += journal.begun
        figures["live"] += len(journal.of("HAS"))
    print(json.dumps({"seconds": round(seconds, 2), "killed": killed, **figures}))


if __name__ == "__main__":
    main()
