"""The agent's HTTP servers: which there are, and where FelixConfiguration wants them."""

from __future__ import annotations

from calipy.agent.live import LiveSettings
from calipy.node.health import Address, Listener, health_application, metrics_application
from calipy.telemetry import Health, Metrics


def servers(health: Health, metrics: Metrics, live: LiveSettings) -> tuple[Listener, ...]:
    """Health and metrics; each is to be told when `live` has changed."""

    def health_address() -> Address | None:
        felix = live.current
        return (felix.health_host, felix.health_port) if felix.health_enabled else None

    def metrics_address() -> Address | None:
        felix = live.current
        address = (felix.prometheus_metrics_host, felix.prometheus_metrics_port)
        return address if felix.prometheus_metrics_enabled else None

    return (
        Listener("health", lambda: health_application(health), health_address, "set healthPort or healthHost"),
        Listener(
            "metrics",
            lambda: metrics_application(metrics),
            metrics_address,
            "set prometheusMetricsPort or prometheusMetricsHost",
        ),
    )
