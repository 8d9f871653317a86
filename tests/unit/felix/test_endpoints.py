"""Endpoints on their way out: nobody is told that one is gone before the kernel has let go of it."""

from __future__ import annotations

import asyncio

from calipy.felix.endpoints import Endpoints
from calipy.model.endpoints import EndpointId, WorkloadEndpoint

WEB = WorkloadEndpoint(
    id=EndpointId("k8s", "default/web", "eth0"), container_id="c1", interface="cali1", addresses=("10.244.0.5",)
)


class Calculator:
    """Takes events in and gives a serial at once."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def post(self, events):
        self.events += events
        future = asyncio.get_running_loop().create_future()
        future.set_result(len(self.events))
        return future


class Dataplane:
    """A kernel that lets go when it is told to."""

    state = None

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.waiting = asyncio.Event()

    async def programmed(self, owners, serial) -> None:
        self.waiting.set()
        await self.let_go.wait()


async def test_who_asks_again_after_giving_up_waits_for_the_kernel_too() -> None:
    dataplane, calculator = Dataplane(), Calculator()
    endpoints = Endpoints(calculator, dataplane)
    endpoints.restore([WEB])
    async with asyncio.TaskGroup() as group:
        first = group.create_task(endpoints.remove(WEB.id, "c1"))
        await dataplane.waiting.wait()
        first.cancel()
        dataplane.waiting.clear()
        second = group.create_task(endpoints.remove(WEB.id, "c1"))
        await dataplane.waiting.wait()
        assert not second.done()
        dataplane.let_go.set()
        await second
    dataplane.let_go.clear()
    await endpoints.remove(WEB.id, "c1")  # all is out: nothing to wait for


async def test_another_containers_endpoint_is_left_alone() -> None:
    endpoints = Endpoints(Calculator(), Dataplane())
    endpoints.restore([WEB])
    await endpoints.remove(WEB.id, "c0")
    assert endpoints.current(WEB.id) == WEB
