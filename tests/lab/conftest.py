"""Labs for tests: whole clusters that live as long as a test, each in a folder that carries this process's id.

    async def test_it(cluster):
        lab = await cluster()                   # three nodes, no encapsulation, both families; or cluster(count=4, ...)
        await lab.add("web", "n1", "TCP/80")    # a pod; its addresses are in the Sandbox that comes back
        await lab.rest()                        # all routes are there, everybody reaches everybody, or the test fails
        await lab.kill("n1", "agent")           # all of calipy.lab.cluster.Lab is there, too
        await lab.machines["n1"].process("bgp").signal(signal.SIGSTOP)
        lab.report(await lab.matrix())             # "" or a line for each pair that fails
        await lab.probe("client", "web:80")     # {4: "allowed", 6: "filtered"}

A lab is up after 4 s. Nothing of it is left when the test ends; what a killed run has left is swept by the next.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from calipy.console.progress import Steps
from calipy.explain.report import SessionReport
from calipy.lab import connections, convergence, lifecycle, pods, reachability, topology
from calipy.lab.cluster import Lab, Part
from calipy.lab.connections import Verdict
from calipy.lab.pods import Protocol, Sandbox, Wish
from calipy.lab.reachability import Probe
from calipy.lab.topology import Encapsulation, Plan
from calipy.lab.waiting import eventually
from calipy.resources import block_affinities

_PREFIX = "calipy-lab-t"


class TestLab(Lab):
    """A lab with the verbs that tests use most."""

    __test__ = False

    async def add(
        self,
        name: str,
        node: str,
        *listens: str,
        namespace: str = "default",
        annotations: Mapping[str, str] = {},
        **labels: str,
    ) -> Sandbox:
        """Makes a pod that listens on `listens` ("TCP/80")."""
        wish = Wish(
            name=name,
            node=node,
            namespace=namespace,
            labels=labels,
            annotations=annotations,
            listens=tuple(map(pods.parse_listen, listens)),
        )
        async with self.store() as store:
            return await pods.add(self, store, wish)

    async def probe(
        self, client: str, server: str, protocol: Protocol = "TCP", timeout_s: float = connections.TIMEOUT_S
    ) -> dict[int, Verdict]:
        """What comes of a connection from `client` to `server` ("web:80"), by family."""
        found = await connections.probe(self, client, server, protocol, timeout_s=timeout_s)
        return {attempt.family: attempt.verdict for attempt in found}

    async def delete(self, pod: Sandbox) -> None:
        """Removes a pod."""
        async with self.store() as store:
            await pods.delete(self, store, pod)

    async def back_on(self, name: str) -> tuple[Sandbox, ...]:
        """Switches a node on after a power cut, as `calipy lab restart` does; the pods that went with the power."""
        await self.power_on(name)
        async with self.store() as store:
            gone = await pods.clear_after_power_cut(self, store, name)
        await self.sessions_up(name)
        return gone

    async def unsupervised(self, name: str, part: Part) -> None:
        """Starts agent or BGP sidecar of a node anew, without anybody who kills it when it is unwell."""
        await self.machines[name].process(part).stop()
        await self.start_part(name, part)
        await self.sessions_up(name)

    async def start_part(self, name: str, part: Part) -> None:
        """Starts agent or BGP sidecar of a node where it was stopped, without a liveness probe."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        environment |= topology.agent_environment(self.plan, self.nodes[name])
        await self.machines[name].spawn(part, [sys.executable, "-m", "calipy", part], environment)

    async def sessions(self, name: str) -> tuple[SessionReport, ...]:
        """A node's BGP sessions."""
        return await self.ask(name, "sessions", tuple[SessionReport, ...])

    async def told_all(self, *names: str) -> None:
        """Waits until these nodes hold no route of a session that has ended."""

        async def none_is_stale() -> bool | str:
            stale = [session.name for name in names for session in await self.sessions(name) if session.stale]
            return not stale or f"routes are held of {', '.join(stale)}"

        await eventually(none_is_stale, "End-of-RIB")

    async def blocks(self) -> dict[str, str]:
        """Blocks in use, and the nodes whose they are."""
        async with self.store() as store:
            claims = [stored.value async for page in store.list(block_affinities.KIND) for stored in page.items]
        return {claim.spec.cidr: claim.spec.node for claim in claims if claim.confirmed}

    async def blocks_of(self, *names: str) -> frozenset[str]:
        """Blocks of some nodes."""
        return frozenset(cidr for cidr, node in (await self.blocks()).items() if node in names)

    async def matrix(self, patience_s: float = reachability.PATIENCE_S) -> tuple[Probe, ...]:
        """Who reaches whom just now."""
        return await reachability.matrix(self, patience_s)

    async def rest(self, encapsulation: Encapsulation | None = None) -> None:
        """Waits until the lab has come to rest."""
        await convergence.carried(self, encapsulation or self.plan.encapsulation)
        assert not self.report(await convergence.reaches(self))

    @staticmethod
    def report(probes: Sequence[Probe]) -> str:
        """What is wrong with a matrix, a line each."""
        assert probes, "nobody tried anything"
        return "\n".join(probe.complaint for probe in probes if probe.complaint)


def _left_over() -> Iterator[Path]:
    """The labs of test runs whose process is gone."""
    for folder in Path("/run").glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            yield folder


@pytest.fixture
def folder() -> Path:
    """A folder for one lab; that it is gone in the end is up to the test."""
    return Path(f"/run/{_PREFIX}{os.getpid()}-{os.urandom(2).hex()}")


@pytest.fixture
async def cluster(folder: Path) -> AsyncIterator[Callable[..., Awaitable[TestLab]]]:
    """A factory: `await cluster(count=3, encapsulation="none", families="dual")` starts a lab. One a test."""
    for old in _left_over():
        await lifecycle.down(old)
    steps = io.StringIO()

    async def start(**plan: object) -> TestLab:
        made = await lifecycle.up(folder, Plan(**plan), Steps(steps))  # type: ignore[arg-type]
        return TestLab(made.folder, made.plan)

    yield start
    _show_logs(folder)
    await lifecycle.down(folder)


def _show_logs(folder: Path) -> None:
    """pytest prints it if the test has failed."""
    for log in sorted(folder.glob("*/*.log")):
        print(f"== {log.parent.name} {log.stem}\n{log.read_text(errors='replace')[-4000:]}")
