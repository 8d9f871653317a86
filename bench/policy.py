"""How soon policy is obeyed: one node with 100 pods and a real agent on the embedded store, IPv4, no other node. A time
runs from when the write begins to the first real packet of a new flow that fares as policy says, with all after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from bench import callers, labs
from bench.nodes import Node, node
from bench.rows import Row, median, row
from bench.witness import Traffic, build
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Stored
from calipy.explain.query import Unanswered
from calipy.explain.report import EndpointReport
from calipy.resources import kubernetes_network_policies, pods
from calipy.resources.kubernetes_network_policies import (
    KubernetesNetworkPolicy,
    KubernetesNetworkPolicySpec,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
)
from calipy.resources.label_selectors import LabelSelector
from calipy.resources.metadata import Kind, ObjectMeta
from calipy.resources.pods import Pod, PodAddress, PodSpec, PodStatus

_PODS, _REMOTE, _MANY, _FEW = 100, 1000, 1000, 10
_ROUNDS, _ROUNDS_ALL = 20, 5
_STEADY_S = 0.05
"""So long packets are looked at once all is in force."""
_PATIENCE_S, _AGAIN_S = 30.0, 0.005
_FAST_HZ, _SLOW_HZ = 2000, 200
_CONFIGURATION = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calipy-cni"}
_POLICY = kubernetes_network_policies.KIND
_CLIENT = f"b{_PODS}"
"""The pod that sends; those before it hear."""


def rows() -> Iterator[Row]:
    """One policy, many, a restart."""
    yield from asyncio.run(_measure())


class Cluster:
    """The node, its pods, its store."""

    def __init__(self, place: Node, store: SQLiteStore, program: Path, addresses: Mapping[str, str]) -> None:
        self.place, self.store = place, store
        self._program, self._addresses = program, addresses

    def traffic(self, names: Sequence[str], rate_hz: float) -> Traffic:
        """From the client to these pods."""
        targets = {name: (self._netns(name), self._addresses[name]) for name in names}
        return Traffic(self._program, self._netns(_CLIENT), targets, rate_hz)

    def _netns(self, name: str) -> str:
        return f"/proc/{self.place.machine.pid}/root/run/netns/{name}"

    async def put(self, name: str, selects: Mapping[str, str], *peers: Mapping[str, str]) -> Stored[Any]:
        """Writes a policy: the pods that it selects hear these peers alone."""
        rules = tuple(
            NetworkPolicyIngressRule(from_=(NetworkPolicyPeer(pod_selector=LabelSelector(match_labels=dict(peer))),))
            for peer in peers
        )
        spec = KubernetesNetworkPolicySpec(
            pod_selector=LabelSelector(match_labels=dict(selects)), policy_types=("Ingress",), ingress=rules
        )
        policy = KubernetesNetworkPolicy(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)
        return await self.store.create(_POLICY, policy)

    async def put_many(self, count: int) -> None:
        """Policies that let in nobody whom there is, as many for each pod; it returns when all are in force."""
        for number in range(count):
            await self.put(f"m{number}", {"pod": f"b{number % _PODS}"}, {"nobody": f"n{number}"})
        await self.programmed()

    async def drop(self, policy: Stored[Any]) -> None:
        """Deletes a policy."""
        await self.store.delete(_POLICY, policy)

    async def relabel(self, name: str, **labels: str) -> None:
        """Gives a pod these labels besides its name's."""
        found = await self.store.get(pods.KIND, name, "default")
        metadata = structs.replace(found.value.metadata, labels={"pod": name, **labels})
        await self.store.update(pods.KIND, found, structs.replace(found.value, metadata=metadata))

    async def programmed(self, kind: Kind[Any] = _POLICY) -> None:
        """Returns when the kernel holds all of a kind that is stored now, and packets have told so."""
        revision = max([page.revision async for page in self.store.list(kind)])

        async def reached() -> bool:
            return (await self.place.ask("programmed", dict[str, int])).get(kind.name, 0) >= revision

        await self.until(reached)
        await asyncio.sleep(_STEADY_S)

    @staticmethod
    async def until(done: Callable[[], Awaitable[bool]]) -> None:
        """Looks again and again: an agent tells nobody how far it is. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            for _ in range(int(_PATIENCE_S / _AGAIN_S)):
                with contextlib.suppress(Unanswered):
                    if await done():
                        return
                await asyncio.sleep(_AGAIN_S)
        raise TimeoutError


async def _measure() -> list[Row]:
    async with _cluster() as cluster:
        found = [
            *_pair("policy stored to obeyed by one pod", await _one_pod(cluster), 8, 25),
            *_pair(f"policy stored to obeyed by {_PODS} pods", await _all_pods(cluster), 20, 40),
            *await _sets(cluster),
            *await _memory(cluster, f"{_PODS} pods", 70),
        ]
        async with labs.STEPS.step(f"one more policy among {_FEW}"):
            await cluster.put_many(_FEW)
            found += _pair(f"one more policy among {_FEW}", await _one_more(cluster))
        async with labs.STEPS.step(f"{_MANY} policies at once"):
            found.append(row(f"{_MANY} policies at once: last one obeyed", "ms", await _many(cluster), limit=1000))
        found += _pair(f"one more policy among {_MANY}", await _one_more(cluster), 8)
        found += await _memory(cluster, f"{_PODS} pods, {_MANY} policies", 90)
        found += await _restarts(cluster)
        return found


def _pair(name: str, samples: Sequence[float], limit: float | None = None, worst: float | None = None) -> list[Row]:
    return [
        row(name, "ms", median(samples), limit=limit),
        row(f"{name}, worst", "ms", max(samples), limit=worst),
    ]


# --- the node ---


@contextlib.asynccontextmanager
async def _cluster() -> AsyncIterator[Cluster]:
    async with node() as place:
        store = await SQLiteStore.open(place.folder / "store" / "datastore.sqlite3")
        try:
            async with labs.STEPS.step(f"{_PODS} pods, and one that sends"):
                addresses = await _attach(place, store)
            yield Cluster(place, store, await build(place.folder), addresses)
        finally:
            await store.close()


async def _attach(place: Node, store: SQLiteStore) -> dict[str, str]:
    """Namespaces, Pods, ADDs; each pod's address."""
    count = _PODS + 1
    await labs.make_namespaces(place.machine, "b", count)
    for name in (f"b{number}" for number in range(count)):
        labels = {"pod": name} if name == _CLIENT else {"pod": name, "group": "all"}
        await store.create(pods.KIND, _pod(name, labels, place.name))
    job = {
        "argv": ["/opt/cni/bin/calipy-cni"],
        "stdin": json.dumps(_CONFIGURATION),
        "env": {"CNI_PATH": "/opt/cni/bin"},
        "arguments": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}",
        "verbs": ["ADD"],
        "count": count,
        "at_once": 10,
        "prefix": "b",
    }
    argv = (sys.executable, "-S", "-E", str(Path(callers.__file__)))
    await place.machine.run(*argv, input=json.dumps(job).encode(), timeout_s=120)
    endpoints: tuple[EndpointReport, ...] = await place.ask("endpoints", tuple[EndpointReport, ...])
    return {endpoint.container_id: endpoint.addresses[0] for endpoint in endpoints}


def _pod(name: str, labels: Mapping[str, str], host: str) -> Pod:
    metadata = ObjectMeta(name=name, namespace="default", labels=dict(labels))
    return Pod(metadata=metadata, spec=PodSpec(node_name=host))


# --- one policy ---


async def _one_pod(cluster: Cluster) -> list[float]:
    """A policy that lets nobody in, again and again."""
    written = []
    async with labs.STEPS.step(f"{_ROUNDS} policies, one after another"), cluster.traffic(["b0"], _FAST_HZ) as traffic:
        for _ in range(_ROUNDS):
            written.append(await _in_force(cluster, {"pod": "b0"}))
    return [traffic.settled_ms(began, ended, passes=False) for began, ended in written]


async def _all_pods(cluster: Cluster) -> list[float]:
    written = []
    names = [f"b{number}" for number in range(_PODS)]
    async with labs.STEPS.step(f"{_ROUNDS_ALL} policies for all pods"), cluster.traffic(names, _SLOW_HZ) as traffic:
        for _ in range(_ROUNDS_ALL):
            written.append(await _in_force(cluster, {"group": "all"}))
    return [traffic.settled_ms(began, ended, passes=False) for began, ended in written]


async def _in_force(cluster: Cluster, selects: Mapping[str, str]) -> tuple[float, float]:
    """Writes a policy that lets nobody in, and takes it away; begin and end of the time in which it was there."""
    began = time.monotonic()
    policy = await cluster.put("one", selects)
    span = await _steady(cluster, began)
    await cluster.drop(policy)
    await cluster.programmed()
    return span


async def _sets(cluster: Cluster) -> list[Row]:
    """A policy that lets 1,000 pods of other nodes in, and the client; then the client leaves and joins."""
    async with labs.STEPS.step(f"{_REMOTE} pods of other nodes"):
        for number in range(_REMOTE):
            address = f"10.250.{number // 250}.{number % 250 + 1}"
            pod = _pod(f"r{number}", {"bulk": "yes"}, f"far{number % 10}")
            status = PodStatus(phase="Running", pod_ip=address, pod_ips=(PodAddress(ip=address),))
            await cluster.store.create(pods.KIND, structs.replace(pod, status=status))
        await cluster.relabel(_CLIENT, bulk="yes")
        closed = await cluster.put("closed", {"pod": "b0"})
        await cluster.programmed()
    opened: list[tuple[float, float]] = []
    left: list[tuple[float, float]] = []
    joined: list[tuple[float, float]] = []
    async with labs.STEPS.step("in and out of a set"), cluster.traffic(["b0"], _FAST_HZ) as traffic:
        for _ in range(_ROUNDS // 2):
            began = time.monotonic()
            policy = await cluster.put("bulk", {"pod": "b0"}, {"bulk": "yes"})
            opened.append(await _steady(cluster, began))
            changes: tuple[tuple[list[tuple[float, float]], dict[str, str]], ...] = (
                (left, {}),
                (joined, {"bulk": "yes"}),
            )
            for spans, labels in changes:
                began = time.monotonic()
                await cluster.relabel(_CLIENT, **labels)
                spans.append(await _steady(cluster, began, pods.KIND))
            await cluster.drop(policy)
            await cluster.programmed()
    await cluster.drop(closed)
    await cluster.relabel(_CLIENT)

    def median_of(spans: Sequence[tuple[float, float]], *, passes: bool) -> float:
        return median([traffic.settled_ms(began, ended, passes=passes) for began, ended in spans])

    return [
        row(f"policy with {_REMOTE} remote pods stored to obeyed", "ms", median_of(opened, passes=True), limit=15),
        row(f"one more pod joins a set of {_REMOTE}", "ms", median_of(joined, passes=True), limit=5),
        row(f"one pod leaves a set of {_REMOTE}", "ms", median_of(left, passes=False), limit=5),
    ]


async def _steady(cluster: Cluster, began: float, kind: Kind[Any] = _POLICY) -> tuple[float, float]:
    await cluster.programmed(kind)
    return began, time.monotonic()


# --- many policies ---


async def _one_more(cluster: Cluster) -> list[float]:
    """One that lets the client into a pod that the others close."""
    written = []
    async with cluster.traffic(["b0"], _FAST_HZ) as traffic:
        for _ in range(_ROUNDS // 2):
            began = time.monotonic()
            policy = await cluster.put("one", {"pod": "b0"}, {"pod": _CLIENT})
            written.append(await _steady(cluster, began))
            await cluster.drop(policy)
            await cluster.programmed()
    return [traffic.settled_ms(began, ended, passes=True) for began, ended in written]


async def _many(cluster: Cluster) -> float:
    """All at once, ten a pod; then one that lets the client in: from its writing until it passes."""
    async for page in cluster.store.list(_POLICY):
        for stored in page.items:
            await cluster.drop(stored)
    async with cluster.traffic(["b0"], _FAST_HZ) as traffic:
        for number in range(_MANY - 1):
            await cluster.put(f"m{number}", {"pod": f"b{number % _PODS}"}, {"nobody": f"n{number}"})
        began = time.monotonic()
        last = await cluster.put("last", {"pod": "b0"}, {"pod": _CLIENT})
        _, ended = await _steady(cluster, began)
    await cluster.drop(last)
    await cluster.put(f"m{_MANY - 1}", {"pod": "b0"}, {"nobody": "last"})
    await cluster.programmed()
    return traffic.settled_ms(began, ended, passes=True)


# --- restarts ---


async def _memory(cluster: Cluster, what: str, limit: float) -> list[Row]:
    resident, _ = labs.memory_mib(await cluster.place.agent_pid())
    return [row(f"agent: memory, {what} (RSS)", "MiB", resident, limit=limit)]


async def _restarts(cluster: Cluster) -> list[Row]:
    """The agent killed; then stopped, its table deleted, and started. The pods are closed to the client by policies,
    but for two: what is sent to one of them tells when all is open again."""
    place = cluster.place
    await cluster.put("opened", {"pod": "b1"}, {"pod": _CLIENT})
    await cluster.programmed()
    async with labs.STEPS.step("the agent killed"), cluster.traffic(["b0", "b1"], _FAST_HZ) as warm:
        began = time.monotonic()
        former = (await place.agent.status()).pid
        await place.agent.kill()
        await _in_sync(place, former)
        ready = time.monotonic()
        report = await place.status()
    async with labs.STEPS.step("the agent started without a table"):
        await place.agent.stop()
        await place.machine.run("nft", "delete", "table", "inet", "calipy")
        async with cluster.traffic(["b0", "b1"], _FAST_HZ) as cold:
            started = time.monotonic()
            await place.start_agent()
            await _in_sync(place, 0)
            await asyncio.sleep(_STEADY_S)
            ended = time.monotonic()
    return [
        row(f"warm restart, {_MANY} policies: ready", "ms", (ready - began) * 1e3, limit=1500),
        row(f"warm restart, {_MANY} policies: kernel writes", "n", sum(d.operations for d in report.drivers), limit=0),
        row("warm restart: packets lost or leaked", "n", warm.wrong({"b0": False, "b1": True}), limit=0),
        row("cold start: closed", "ms", cold.settled_ms(started, ended, passes=False, names=["b0"]), limit=150),
        row(
            f"cold start, {_MANY} policies: all in force", "ms",
            cold.settled_ms(started, ended, passes=True, names=["b1"]), limit=1500,
        ),
    ]  # fmt: skip


async def _in_sync(place: Node, former: int) -> None:
    """Another process than `former` holds all in the kernel, and takes pods."""

    async def back() -> bool:
        if (await place.agent.status()).pid in (0, former):
            return False
        report = await place.status()
        return report.in_sync and not report.obstacle and report.endpoints > _PODS

    await Cluster.until(back)
