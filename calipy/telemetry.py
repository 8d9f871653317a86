"""Every metric's name, and who reports on health. Only shells import this."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector


class Metrics:
    """All metrics of an agent, Felix's names where the meaning is the same. What is a state and no event is read when
    it is asked for: whoever knows it gives a function (`set_function`, `counted`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.host = self._gauge("felix_host", "This node's name, as a label; always 1.", ["host"])
        self.endpoints = self._gauge("felix_active_local_endpoints", "Local endpoints.")
        self.policies = self._gauge("felix_active_local_policies", "Policies in force on this node.")
        self.resync_state = self._gauge("felix_resync_state", "1 = waiting, 2 = listing, 3 = in sync.")
        self.hosts = self._gauge("felix_cluster_num_hosts", "Nodes of the cluster.")
        self.workloads = self._gauge("felix_cluster_num_workload_endpoints", "Pods of the cluster with own addresses.")
        self.calculation_time = Histogram(
            "felix_calc_graph_update_time_seconds", "Time of one flush of the calculation.", registry=self.registry
        )
        self.apply_time = Histogram(
            "felix_int_dataplane_apply_time_seconds", "Time of one apply.", registry=self.registry
        )
        self.policy_programming = Histogram(
            "calipy_policy_programming_seconds",
            "Time from the store's delivery of a changed policy to its commit in the kernel.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
            registry=self.registry,
        )
        self.repairs = Counter(
            "calipy_foreign_changes",
            "Foreign changes of what is ours, noticed and repaired.",
            ["driver"],
            registry=self.registry,
        )
        self.routes = self._gauge("felix_route_table_num_routes", "Routes programmed.")
        self.cni_requests = Histogram(
            "calipy_cni_request_seconds",
            "CNI requests by verb and result code.",
            ["verb", "code"],
            registry=self.registry,
        )
        self.store_requests = Counter(
            "rest_client_requests",
            "Requests to the API server by verb, resource and HTTP status; `error` = no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.bgp_peers = self._gauge("calipy_bgp_peers", "BGP sessions by state.", ["state"])
        self.loop_lag = Histogram(
            "calipy_loop_lag_seconds",
            "How late the event loop runs what is due.",
            buckets=(0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
            registry=self.registry,
        )

    def counted(self, name: str, meaning: str, read: Callable[[], Mapping[str, float]], label: str = "") -> None:
        """A counter that somebody else keeps: `read` gives its value now, by the value of `label` ("" where there is
        no label)."""
        self.registry.register(_Read(CounterMetricFamily, name, meaning, read, label))

    def counted_gauge(self, name: str, meaning: str, read: Callable[[], Mapping[str, float]], label: str) -> None:
        """The same for what goes down too."""
        self.registry.register(_Read(GaugeMetricFamily, name, meaning, read, label))

    def exposition(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, meaning: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)


class _Read(Collector):
    def __init__(
        self,
        family: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        meaning: str,
        read: Callable[[], Mapping[str, float]],
        label: str,
    ) -> None:
        self._family = family
        self._name, self._meaning, self._read, self._label = name, meaning, read, label

    def collect(self) -> Iterator[Metric]:
        family = self._empty()
        for value, count in sorted(self._read().items()):
            family.add_metric([value] if self._label else [], count)
        yield family

    def describe(self) -> Iterator[Metric]:
        """Registering asks for no value: who keeps it may not be there yet."""
        yield self._empty()

    def _empty(self) -> CounterMetricFamily | GaugeMetricFamily:
        return self._family(self._name, self._meaning, labels=[self._label] if self._label else [])


Reporter = Callable[[], str]
"""Says what is wrong now; an empty string means all is well."""


class Row(Struct, frozen=True, gc=False, kw_only=True):
    """One reporter's line in the table of health."""

    component: str
    timeout_s: float | None
    """For how long it may give no sign of life; None = it gives none."""
    overridden: bool
    live: str | None
    """What is wrong with its liveness; empty = nothing, None = it doesn't report that."""
    ready: str | None
    degraded: str = ""
    """What isn't as it is meant to be, for which it is neither dead nor unready."""


class Health:
    """Who reports on liveness and readiness: name -> reporter. Names are Felix's where the part is the same."""

    def __init__(self) -> None:
        self.live: dict[str, Reporter] = {}
        self.ready: dict[str, Reporter] = {}
        self.degraded: dict[str, Reporter] = {}
        """Of those that also report on readiness, what keeps nothing from being ready."""
        self.overrides: Mapping[str, float] = {}
        """healthTimeoutOverrides: name -> seconds that hold instead of those given to `watch`; 0 = any time."""
        self._limits_s: dict[str, float] = {}

    def watch(self, name: str, silent_s: Callable[[], float], most_s: float) -> None:
        """`name` isn't live once `silent_s()`, how long it has given no sign of life, is more than `most_s`."""
        self._limits_s[name] = most_s

        def report() -> str:
            silent, limit = silent_s(), self._limit_s(name)
            return f"no sign of life for {silent:.0f} s (limit {limit:g} s)" if 0 < limit < silent else ""

        self.live[name] = report

    @staticmethod
    def problems(reporters: Mapping[str, Reporter]) -> dict[str, str]:
        """What is wrong, by reporter's name; empty if all is well."""
        return {name: said for name, report in reporters.items() if (said := report())}

    def rows(self) -> tuple[Row, ...]:
        """All reporters, by name."""
        return tuple(
            Row(
                component=name,
                timeout_s=self._limit_s(name) if name in self._limits_s else None,
                overridden=name in self._limits_s and name in self.overrides,
                live=self.live[name]() if name in self.live else None,
                ready=self.ready[name]() if name in self.ready else None,
                degraded=self.degraded[name]() if name in self.degraded else "",
            )
            for name in sorted(self.live.keys() | self.ready.keys())
        )

    def _limit_s(self, name: str) -> float:
        return self.overrides.get(name, self._limits_s[name])


class Pulse:
    """The life of a loop that waits for work: how long the turn at work has lasted. While it waits, it lives."""

    def __init__(self) -> None:
        self._began: float | None = None
        self.began: Callable[[], object] = lambda: None
        """Told of each turn when it begins."""
        self.ended: Callable[[float], object] = lambda seconds: None
        """Told of each turn how long it was."""

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One turn of the loop, from taking work to having done it."""
        began = self._began = time.monotonic()
        self.began()
        try:
            yield
        finally:
            self._began = None
            self.ended(time.monotonic() - began)

    def silent_s(self) -> float:
        """How long the present turn has lasted; 0 between turns."""
        return 0.0 if self._began is None else time.monotonic() - self._began


class Heartbeat:
    """The life of a loop that comes round by the clock."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        """The loop has come round."""
        self._last = time.monotonic()

    def silent_s(self) -> float:
        """How long it hasn't."""
        return time.monotonic() - self._last
