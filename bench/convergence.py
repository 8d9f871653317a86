"""How soon the other nodes know: a cluster of three nodes, two on one segment, the third behind a router; BGP carries
it. "The last node" is the later of the other two, as its kernel tells of its routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from bench import firsts, labs
from bench.rows import Row, median, row
from calipy.lab import pods
from calipy.lab.cluster import BGP, Lab
from calipy.lab.machines import Machine
from calipy.lab.pods import Listen, Sandbox, Wish
from calipy.netlink import rtnetlink
from calipy.netlink.socket import ROUTE, NetlinkSocket
from calipy.resources import bgp_configurations, block_affinities
from calipy.resources.bgp_configurations import BGPConfiguration, BGPConfigurationSpec
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec, labels_of, name_of
from calipy.resources.metadata import ObjectMeta

_NODE, _OTHERS = "n1", ("n2", "n3")
_BLOCKS, _DEATHS, _PODS = 20, 5, 20
_PATIENCE_S = 30.0
_STEADY_S = 0.3
"""After so long nothing else is on its way."""
_CONFIGURATION = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calipy-cni"}


def rows() -> Iterator[Row]:
    """Blocks, first packets, a dead speaker."""
    yield from asyncio.run(_measure())


async def _measure() -> list[Row]:
    async with labs.lab() as lab, _watches(lab) as watches:
        async with lab.store() as store:
            echo = await pods.add(lab, store, Wish(name="echo", node=_OTHERS[0], listens=(Listen("UDP", 7),)))
        async with labs.STEPS.step(f"{_BLOCKS} blocks confirmed, one after another"):
            blocks = await _blocks(lab, watches)
        async with labs.STEPS.step(f"{_PODS} pods' first packets"):
            packets = await _first_packets(lab.machines[_NODE], echo)
        async with labs.STEPS.step(f"exabgp of {_NODE} killed {_DEATHS} times, without graceful restart"):
            deaths = await _deaths(lab, watches)
        return [
            *_rows("block confirmed to route on the last node", blocks, limit=100),
            *_rows("CNI ADD's return to first packet to another node", packets, limit=5),
            *_rows("exabgp dead to routes gone on the last node", deaths),
        ]


def _rows(name: str, samples: Sequence[float], limit: float | None = None) -> tuple[Row, Row]:
    return row(name, "ms", median(samples), limit=limit), row(f"{name}, worst", "ms", max(samples))


class Watch:
    """A node's routes, as its kernel tells of them."""

    def __init__(self, machine: Machine) -> None:
        namespace = os.open(f"/proc/{machine.pid}/ns/net", os.O_RDONLY)
        self._socket = NetlinkSocket.open(ROUTE, (rtnetlink.GROUP_IPV4_ROUTE,), namespace)
        os.close(namespace)
        self._waiting: dict[tuple[int, str], asyncio.Future[float]] = {}
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        now = time.perf_counter()
        for packet in self._socket.receive():
            if packet.kind in (rtnetlink.NEW_ROUTE, rtnetlink.DELETE_ROUTE):
                future = self._waiting.pop((packet.kind, rtnetlink.parse_route(packet.body).destination), None)
                if future is not None:
                    future.set_result(now)

    def expect(self, kind: int, prefix: str) -> asyncio.Future[float]:
        """When (perf_counter) the next such notification comes."""
        return self._waiting.setdefault((kind, prefix), asyncio.get_running_loop().create_future())

    def close(self) -> None:
        """Stops listening."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()


@contextlib.asynccontextmanager
async def _watches(lab: Lab) -> AsyncIterator[Sequence[Watch]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Watch(lab.machines[name]))) for name in _OTHERS]


async def _last(watches: Sequence[Watch], kind: int, prefix: str, cause: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds from just before `cause` until the last node has done it."""
    expected = [watch.expect(kind, prefix) for watch in watches]
    began = time.perf_counter()
    await cause()
    async with asyncio.timeout(_PATIENCE_S):
        return (max(await asyncio.gather(*expected)) - began) * 1e3


def _prefix(number: int) -> str:
    return f"10.244.{200 + number}.0/26"


def _claim(prefix: str, state: Literal["pending", "confirmed"]) -> BlockAffinity:
    metadata = ObjectMeta(name=name_of(_NODE, prefix), labels=labels_of(_NODE, prefix))
    return BlockAffinity(metadata=metadata, spec=BlockAffinitySpec(cidr=prefix, node=_NODE, state=state))


async def _blocks(lab: Lab, watches: Sequence[Watch]) -> list[float]:
    """A claim's confirmation is a write to the store, which is part of the time."""
    took = []
    async with lab.store() as store:
        for prefix in map(_prefix, range(_BLOCKS)):
            pending = await store.create(block_affinities.KIND, _claim(prefix, "pending"))
            await asyncio.sleep(_STEADY_S)
            confirm = partial(store.update, block_affinities.KIND, pending, _claim(prefix, "confirmed"))
            took.append(await _last(watches, rtnetlink.NEW_ROUTE, prefix, confirm))
    return took


async def _first_packets(machine: Machine, echo: Sandbox) -> list[float]:
    await labs.make_namespaces(machine, "b", _PODS)
    job = {
        "plugin": "/opt/cni/bin/calipy-cni",
        "stdin": json.dumps(_CONFIGURATION),
        "count": _PODS,
        "prefix": "b",
        "echo": [echo.addresses[0], echo.listens[0].port],
    }
    argv = (sys.executable, "-S", "-E", str(Path(firsts.__file__)))
    done = await machine.run(*argv, input=json.dumps(job).encode(), timeout_s=120)
    found: list[float] = json.loads(done.stdout)
    return found[1:]  # the node's first block goes out with the first pod


async def _deaths(lab: Lab, watches: Sequence[Watch]) -> list[float]:
    """Without graceful restart the peers can't know that it will be back."""
    async with lab.store() as store:
        spec = BGPConfigurationSpec(node_mesh_max_restart_time="0s")
        metadata = ObjectMeta(name="default")
        await store.create(bgp_configurations.KIND, BGPConfiguration(metadata=metadata, spec=spec))
    await asyncio.sleep(2)
    took = []
    for _ in range(_DEATHS):
        for name in lab.nodes:
            await lab.sessions_up(name)
        prefix = _prefix(0)
        back = [watch.expect(rtnetlink.NEW_ROUTE, prefix) for watch in watches]
        took.append(await _last(watches, rtnetlink.DELETE_ROUTE, prefix, lambda: lab.kill(_NODE, BGP)))
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*back)
    return took
