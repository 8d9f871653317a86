"""A mistake in a compiler costs its owner: it takes its closed form, says why and is tried again; others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from calipy.felix import dataplane as module
from calipy.felix.calc.change import Change
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dataplane import Area, Dataplane, Refused
from calipy.felix.objects import Objects
from calipy.felix.rules import endpoints, names
from calipy.felix.rules.compile import RulesPlanner, endpoint_owner
from calipy.felix.rules.values import Chain, Drop
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from tests.unit.felix.kernels import Kernel


class Node:
    """A dataplane at work on such a kernel."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.kernel = Kernel()
        self.area = Area(self.kernel, RulesPlanner())
        self.dataplane = Dataplane([self.area], thread)

    def submit(self, *present: WorkloadEndpoint, gone: tuple[WorkloadEndpoint, ...] = ()) -> int:
        settings = FelixSettings() if self.dataplane.state is None else None
        moved = {found.id: found for found in present} | dict.fromkeys(found.id for found in gone)
        return self.dataplane.submit(Change(settings=settings, endpoints=moved))

    async def programmed(self, endpoint: WorkloadEndpoint, serial: int) -> None:
        await asyncio.wait_for(self.dataplane.programmed([endpoint_owner(endpoint.id)], serial), 2)

    def drops_all(self, endpoint: WorkloadEndpoint) -> bool:
        chain = self.kernel.holds.get(names.chain(names.to_chain(endpoint.interface)))
        return isinstance(chain, Chain) and [rule.action for rule in chain.rules] == [Drop()]


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.01)
    with ThreadPoolExecutor(1, "kernel") as thread:
        made = Node(thread)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(made.dataplane.run())
            yield made
            running.cancel()


def endpoint(name: str, address: str, interface: str = "", profile: str = "kns.default") -> WorkloadEndpoint:
    id_, interface = EndpointId("k8s", f"default/{name}", "eth0"), interface or f"cali{name}"
    return WorkloadEndpoint(id=id_, container_id=name, interface=interface, addresses=(address,), profiles=(profile,))


A, B, C = (endpoint(name, f"10.0.0.{number}") for number, name in enumerate("abc"))


async def test_a_compiler_that_raises_costs_its_owner_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile_, mistaken = endpoints.compile, {B.id}

    def mistake(found: WorkloadEndpoint, settings: FelixSettings) -> Objects:
        if found.id in mistaken:
            raise KeyError("tier")
        return compile_(found, settings)

    monkeypatch.setattr(endpoints, "compile", mistake)
    serial = node.submit(A, B, C)
    for well in (A, C):
        await node.programmed(well, serial)
    with pytest.raises(Refused, match="endpoint k8s/default/b/eth0: .*KeyError: 'tier'"):
        await node.programmed(B, serial)
    assert [node.drops_all(found) for found in (A, B, C)] == [False, True, False]
    assert node.area.refusals >= 1
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "endpoint k8s/default/b/eth0" in said
    assert "KeyError: 'tier'" in said
    mistaken.clear()
    async with asyncio.timeout(5):
        while node.drops_all(B):  # noqa: ASYNC110  it is tried again by the clock
            await asyncio.sleep(0.01)
    await node.programmed(B, serial)
    assert dict(node.dataplane.refused) == {}


async def test_two_owners_that_contradict_each_other_cost_the_later_one(node: Node) -> None:
    """Two endpoints behind one link's name, which no input of ours can bring about."""
    twin = endpoint("twin", "10.0.0.9", A.interface, "kns.other")
    await node.programmed(A, node.submit(A))
    serial = node.submit(twin, C)
    await node.programmed(C, serial)
    with pytest.raises(Refused, match="want different values of"):
        await node.programmed(twin, serial)
    assert node.kernel.holds.items() >= endpoints.compile(A, FelixSettings()).items()
    await node.programmed(A, node.submit(gone=(A,)))
    async with asyncio.timeout(5):
        while node.dataplane.refused:  # noqa: ASYNC110  it is tried again by the clock
            await asyncio.sleep(0.01)
    await node.programmed(twin, serial)
    assert node.kernel.holds.items() >= endpoints.compile(twin, FelixSettings()).items()


async def test_a_closed_form_that_cannot_be_made_leaves_its_owner_out(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(*_: object) -> Objects:
        raise KeyError("tier")

    monkeypatch.setattr(endpoints, "closed", mistake)
    monkeypatch.setattr(endpoints, "compile", mistake)
    serial = node.submit(B)
    with pytest.raises(Refused, match="KeyError: 'tier'"):
        await node.programmed(B, serial)
    assert names.chain(names.to_chain(B.interface)) not in node.kernel.holds
    monkeypatch.undo()
    serial = node.submit(C)
    await node.programmed(C, serial)
