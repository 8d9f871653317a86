"""What metrics tell of those who know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from msgspec import structs

from calipy.agent import figures
from calipy.felix.calc.graph import Graph
from calipy.felix.calc.stats import Stats
from calipy.felix.calculator import Calculator
from calipy.telemetry import Health, Metrics
from tests.unit.felix.calc.stories import flush
from tests.unit.felix.calc.worlds import ME, attached, gnp, ns


def values(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.exposition().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_what_the_calculation_has_done_is_told_as_it_is_now() -> None:
    graph = Graph(ME, {})
    calculator = Calculator(graph, lambda change: 0)
    dataplane = SimpleNamespace(state=None)
    metrics = Metrics()
    figures.publish_calculation(metrics, cast(Any, SimpleNamespace(dataplane=dataplane, calculator=calculator)))
    assert values(metrics)["felix_active_local_policies"] == 0
    assert values(metrics)["calipy_calc_conversions_total"] == 0
    rule = {"action": "Allow", "source": {"selector": "app == 'a'"}}
    graph.update([ns("one"), attached("a", "10.0.0.1", namespace="one", labels={"app": "a"}), gnp("p", ingress=[rule])])
    flush(graph)
    dataplane.state = graph.state()
    found, stats = values(metrics), graph.stats
    assert found["felix_active_local_policies"] == 1
    assert found["felix_label_index_selector_evals_total"] == stats.evaluations > 0
    assert found["calipy_calc_conversions_total"] == stats.conversions > 0
    assert found["calipy_calc_bindings_total"] == stats.bindings > 0
    assert found["calipy_calc_set_fillings_total"] == stats.fillings > 0
    assert found["calipy_calc_memberships_total"] == stats.memberships > 0


def test_every_figure_of_the_calculation_is_a_metric() -> None:
    stats = Stats(**{name: number for number, name in enumerate(Stats.__struct_fields__, 101)})
    metrics, engine = Metrics(), SimpleNamespace(dataplane=SimpleNamespace(state=None), calculator=None)
    engine.calculator = SimpleNamespace(stats=stats)
    figures.publish_calculation(metrics, cast(Any, engine))
    assert set(structs.asdict(stats).values()) <= set(values(metrics).values())


def test_findings_are_counted_and_keep_nothing_from_being_ready() -> None:
    checks = SimpleNamespace(problem=lambda: "inet a c, policy: drops", by_check=lambda: {"foreign-drop": 1})
    metrics, health = Metrics(), Health()
    figures.publish_checks(metrics, health, cast(Any, checks))
    assert values(metrics)['calipy_check_findings{check="foreign-drop"}'] == 1
    (row,) = health.rows()
    assert (row.component, row.ready, row.degraded) == ("Checks", "", "inet a c, policy: drops")
    assert health.problems(health.ready) == {}
