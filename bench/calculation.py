"""Policy's calculation by itself: what a node with a hundred endpoints works out in a large cluster. In time of the
processor, for nothing here waits."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row, median, row
from calipy.felix.calc.graph import Graph
from calipy.felix.calc.world import Attached, Event, ResourceGone, ResourcePut
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.resources.metadata import Key, ObjectMeta, Resource
from calipy.resources.namespaces import Namespace
from calipy.resources.network_policies import NetworkPolicy, NetworkPolicySpec
from calipy.resources.pods import Pod, PodAddress, PodSpec, PodStatus
from calipy.resources.policy_rules import EntityRule, Rule

_NODE, _SPACES, _ENDPOINTS, _APPS = "n0", 100, 100, 20
_REPEATS = 30


def rows() -> Iterator[Row]:
    """One change among many pods, one policy among many, all of it from nothing; and what it takes of memory."""
    yield from _changes(100_000, 1_000)
    yield from _policies(10_000, few=10, many=1_000)
    yield from _everything(10_000, 1_000)


def _changes(pods: int, policies: int) -> Iterator[Row]:
    events = list(_cluster(pods, policies))
    gc.collect()
    before = _resident_mib()
    graph, _ = _told(events)
    yield row(f"calculation: memory of {pods} pods (RSS)", "MiB", _resident_mib() - before, limit=150)
    samples = []
    for number in range(_REPEATS):
        pod = number * 7
        samples.append(_took(graph, [_pod(pod, app=f"app-{number % _APPS}", version="new")]))
        _took(graph, [_pod(pod)])
    yield row(f"calculation: one label change among {pods} pods", "ms", median(samples), limit=5)


def _policies(pods: int, *, few: int, many: int) -> Iterator[Row]:
    found = []
    for policies in (many, few):
        graph, _ = _told(list(_cluster(pods, policies)))
        samples = []
        for number in range(_REPEATS):
            more = _policy(policies + number)
            samples.append(_took(graph, [more]))
            _took(graph, [ResourceGone(more.key, 2)])
        found.append(median(samples))
    name = f"calculation: one more policy among {many}"
    yield row(name, "ms", found[0], found[1], f"among {few}", aim="<= 1.5")


def _everything(pods: int, policies: int) -> Iterator[Row]:
    events = list(_cluster(pods, policies))
    totals, steps = [], []
    for _ in range(3):
        _, taken = _told(events)
        totals.append(sum(taken))
        steps.append(max(taken))
    yield row(f"calculation: {pods} pods x {policies} policies", "ms", median(totals), limit=1500)
    yield row(f"calculation: {pods} pods x {policies} policies, longest step", "ms", median(steps), limit=20)


def _told(events: list[Event]) -> tuple[Graph, list[float]]:
    """A graph that knows all of it, and the milliseconds of each step. The collector doesn't look through what was
    there before, as in the agent."""
    gc.collect()
    gc.freeze()
    graph = Graph(_NODE, {})
    graph.update(events)
    steps = list(_steps(graph))
    gc.freeze()
    return graph, steps


def _took(graph: Graph, events: list[Event]) -> float:
    """Milliseconds of a flush with these events."""
    graph.update(events)
    return sum(_steps(graph))


def _steps(graph: Graph) -> Iterator[float]:
    pauses = graph.flush()
    while True:
        began = time.thread_time()
        try:
            next(pauses)
        except StopIteration:
            yield (time.thread_time() - began) * 1e3
            return
        yield (time.thread_time() - began) * 1e3


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4 / 1024


# --- a cluster ---


def _cluster(pods: int, policies: int) -> Iterator[Event]:
    for number in range(_SPACES):
        yield _put(Namespace(metadata=ObjectMeta(name=f"ns-{number}", labels={"team": f"team-{number % 10}"})))
    for number in range(_ENDPOINTS):
        space = f"ns-{number % _SPACES}"
        yield Attached(
            WorkloadEndpoint(
                id=EndpointId("k8s", f"{space}/here-{number}", "eth0"), container_id=str(number),
                interface=f"cali{number}", addresses=(f"10.63.0.{number}",), namespace=space, pod=f"here-{number}",
                labels={"app": f"app-{number % _APPS}", "here": "yes"},
            )
        )  # fmt: skip
    yield from map(_pod, range(pods))
    yield from map(_policy, range(policies))


def _put(value: Resource) -> ResourcePut:
    return ResourcePut(Key(type(value).__name__, value.metadata.name, value.metadata.namespace), value, 1)


def _pod(number: int, **changed: str) -> ResourcePut:
    """Of another node, one of a deployment's."""
    space, app = number % _SPACES, number // _SPACES % _APPS
    labels = {"app": f"app-{app}", "version": f"v{number % 3}", "tier": ("front", "back")[number % 2]}
    labels["pod-template-hash"] = f"{space}-{app}"
    address = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return _put(
        Pod(
            metadata=ObjectMeta(name=f"pod-{number}", namespace=f"ns-{space}", labels={**labels, **changed}),
            spec=PodSpec(node_name=f"n{1 + number % 100}", service_account_name="default"),
            status=PodStatus(phase="Running", pod_ip=address, pod_ips=(PodAddress(ip=address),)),
        )
    )


def _policy(number: int) -> ResourcePut:
    """Of one namespace, for its endpoints here, with sources in it and in others."""
    space, turn = number % _SPACES, number // _SPACES
    near = EntityRule(selector=f"app == 'app-{turn % _APPS}' && tier == 'front'")
    far = EntityRule(namespace_selector=f"team == 'team-{(space + turn) % 10}'", selector=f"app == 'app-{turn % 7}'")
    return _put(
        NetworkPolicy(
            metadata=ObjectMeta(name=f"policy-{turn}", namespace=f"ns-{space}"),
            spec=NetworkPolicySpec(
                order=float(turn),
                selector=f"has(here) || app == 'app-{turn % _APPS}'",
                ingress=(
                    Rule(action="Allow", protocol="TCP", source=near, destination=EntityRule(ports=(80, 443))),
                    Rule(action="Allow", source=far),
                ),
            ),
        )
    )
