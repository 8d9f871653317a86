"""Health and metrics told by those who know: which reporter asks whom, and how long each loop may be silent."""

from __future__ import annotations

from collections import Counter

from calipy.agent.feed import Feed
from calipy.conversion.pods import pod_addresses
from calipy.datastore.mirror import Mirror
from calipy.felix.dataplane import Dataplane
from calipy.felix.engine import Engine
from calipy.felix.recheck import Recheck
from calipy.node.check import REPORTER
from calipy.node.checking import Checks
from calipy.resources import pods
from calipy.telemetry import Health, Heartbeat, Metrics

CALCULATION_MOST_S, DATAPLANE_MOST_S, FEED_MOST_S, LOOP_MOST_S = 30.0, 90.0, 30.0, 30.0
"""How long a turn may last, or a beat be late; Felix's where it has the loop (dataplaneWatchdogTimeout)."""
_WAITING, _LISTING, _IN_SYNC = 1, 2, 3


def publish_kernel(metrics: Metrics, engine: Engine) -> None:
    """What the kernel's keeper knows."""
    dataplane, areas = engine.dataplane, engine.areas
    metrics.endpoints.set_function(lambda: len(engine.endpoints.attached))
    engine.calculator.pulse.ended = metrics.calculation_time.observe
    engine.policy_times.observe = metrics.policy_programming.observe
    metrics.routes.set_function(lambda: len(dataplane.state.routes) if dataplane.state else 0)
    dataplane.pulse.ended = metrics.apply_time.observe
    for name, meaning, attribute in (
        ("felix_int_dataplane_failures", "Operations that the kernel has refused.", "refusals"),
        ("calipy_dataplane_reads", "Times that the kernel was read.", "reads"),
        ("calipy_dataplane_writes", "Batches written to the kernel.", "writes"),
        ("calipy_dataplane_operations", "Objects put or deleted.", "operations"),
    ):
        metrics.counted(
            name, meaning, lambda what=attribute: {area.driver.name: getattr(area, what) for area in areas}, "driver"  # type: ignore[misc]
        )  # fmt: skip


def publish_calculation(metrics: Metrics, engine: Engine) -> None:
    """What policy has cost, and what of it is in force here."""
    dataplane, calculator = engine.dataplane, engine.calculator
    metrics.policies.set_function(lambda: len(dataplane.state.policies) if dataplane.state else 0)
    for name, meaning, attribute in (
        ("felix_label_index_selector_evals", "Selectors judged against labels.", "evaluations"),
        ("calipy_calc_conversions", "Policies and profiles whose rules were made.", "conversions"),
        ("calipy_calc_bindings", "Times that the policies of endpoints with the same labels were ordered.", "bindings"),
        ("calipy_calc_set_fillings", "Sets that came into force and were filled.", "fillings"),
        ("calipy_calc_memberships", "Members that came to a set in force, or went from it.", "memberships"),
        ("calipy_calc_mergings", "Runs of policies for which it was found out anew who asks for whom.", "mergings"),
        ("calipy_calc_askings", "Times that the policies of a run that ask for an address were found out.", "askings"),
    ):
        metrics.counted(name, meaning, lambda what=attribute: {"": getattr(calculator.stats, what)})  # type: ignore[misc]


def publish_recheck(metrics: Metrics, recheck: Recheck) -> None:
    """What policyRecheck has done."""
    for name, meaning, attribute in (
        ("calipy_policy_recheck_passes", "Looks at the table of connections.", "passes"),
        ("calipy_policy_recheck_flows_judged", "Established connections that were judged anew.", "judged"),
        ("calipy_policy_recheck_flows_cut", "Those that were forbidden by then, and cut.", "cut"),
        ("calipy_policy_recheck_flows_reprieved", "Cut connections that may begin anew.", "reprieved"),
    ):
        metrics.counted(name, meaning, lambda what=attribute: {"": getattr(recheck, what)})  # type: ignore[misc]


def publish_checks(metrics: Metrics, health: Health, checks: Checks) -> None:
    """What is wrong with the host keeps nothing from being ready: it is named."""
    health.ready[REPORTER], health.degraded[REPORTER] = lambda: "", checks.problem
    metrics.counted_gauge(
        "calipy_check_findings",
        "What is wrong with this host, by check: errors and warnings.",
        checks.by_check,
        "check",
    )


def publish_store(metrics: Metrics, feed: Feed, mirror: Mirror) -> None:
    """What the store's follower knows."""
    metrics.resync_state.set_function(
        lambda: _IN_SYNC if feed.in_sync.is_set() else _LISTING if mirror.connected else _WAITING
    )
    metrics.hosts.set_function(lambda: len(feed.all_nodes()))
    metrics.workloads.set_function(lambda: sum(bool(pod_addresses(pod)) for pod in feed.all(pods.KIND)))
    metrics.counted_gauge(
        "calipy_resources_refused",
        "Objects that are refused now, by kind.",
        lambda: Counter(key.kind for key in feed.refused),
        "kind",
    )


def report_ready(health: Health, dataplane: Dataplane, feed: Feed, mirror: Mirror) -> None:
    """What readiness waits for, by Felix's names where it has them."""
    ready = health.ready
    ready["CalculationGraph"] = lambda: "" if feed.in_sync.is_set() else "not in sync with the datastore yet"
    ready["InternalDataplaneMainLoop"] = lambda: (
        "" if dataplane.first_apply.is_set() else "the kernel hasn't been brought up to date yet"
    )
    ready["Datastore"] = lambda: "; ".join(sorted({c.error for c in mirror.connections.values() if c.error}))
    ready["Kernel"] = lambda: "; ".join(dataplane.refused.values())


def watch_loops(health: Health, engine: Engine, feed: Feed, loop: Heartbeat) -> None:
    """The long loops, by Felix's names where it has them: a turn that doesn't end, or a beat that doesn't come."""
    health.watch("CalculationGraph", engine.calculator.pulse.silent_s, CALCULATION_MOST_S)
    health.watch("InternalDataplaneMainLoop", engine.dataplane.pulse.silent_s, DATAPLANE_MOST_S)
    health.watch("Datastore", feed.pulse.silent_s, FEED_MOST_S)
    health.watch("EventLoop", loop.silent_s, LOOP_MOST_S)
