"""Every metric's name, and who reports on health. Only shells import this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """All metrics of an agent, Felix's names where the meaning is the same."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.endpoints = Gauge("felix_active_local_endpoints", "Local endpoints.", registry=self.registry)
        self.resync_state = Gauge("felix_resync_state", "1 = waiting, 3 = in sync.", registry=self.registry)
        self.apply_time = Histogram(
            "felix_int_dataplane_apply_time_seconds", "Time of one apply.", registry=self.registry
        )
        self.failures = Counter("felix_int_dataplane_failures", "Refused operations.", registry=self.registry)
        self.repairs = Counter(
            "calipy_foreign_changes",
            "Foreign changes of what is ours, noticed and repaired.",
            ["driver"],
            registry=self.registry,
        )
        self.routes = Gauge("felix_route_table_num_routes", "Routes programmed.", registry=self.registry)
        self.cni_requests = Histogram(
            "calipy_cni_request_seconds",
            "CNI requests by verb and result code.",
            ["verb", "code"],
            registry=self.registry,
        )
        self.bgp_peers = Gauge("calipy_bgp_peers", "BGP sessions by state.", ["state"], registry=self.registry)
        self.loop_lag = Histogram(
            "calipy_loop_lag_seconds",
            "How late the event loop runs what is due.",
            buckets=(0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
            registry=self.registry,
        )

    def exposition(self) -> bytes:
        """The text format that Prometheus scrapes."""
        return generate_latest(self.registry)


Reporter = Callable[[], str]
"""Says what is wrong now; an empty string means all is well."""


class Health:
    """Who reports on liveness and readiness: name -> reporter."""

    def __init__(self) -> None:
        self.live: dict[str, Reporter] = {}
        self.ready: dict[str, Reporter] = {}

    @staticmethod
    def problems(reporters: Mapping[str, Reporter]) -> dict[str, str]:
        """What is wrong, by reporter's name; empty if all is well."""
        return {name: said for name, report in reporters.items() if (said := report())}


class Heartbeat:
    """A reporter for a loop that must come round: complains when it hasn't for `most_s` seconds."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._last = time.monotonic()

    def beat(self) -> None:
        """The loop has come round."""
        self._last = time.monotonic()

    def __call__(self) -> str:
        age = time.monotonic() - self._last
        return f"no sign of life for {age:.0f} s (limit {self._most_s:.0f} s)" if age > self._most_s else ""
