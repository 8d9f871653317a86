"""Metrics that are read when they are asked for; health by reporters and signs of life."""

from __future__ import annotations

import pytest

from calipy.telemetry import Health, Heartbeat, Metrics, Pulse


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.exposition().decode().splitlines() if line.startswith(name)]


def test_gauges_tell_what_is_so_now() -> None:
    metrics, endpoints = Metrics(), ["a"]
    metrics.endpoints.set_function(lambda: len(endpoints))
    assert lines(metrics, "felix_active_local_endpoints") == ["felix_active_local_endpoints 1.0"]
    endpoints.append("b")
    assert lines(metrics, "felix_active_local_endpoints") == ["felix_active_local_endpoints 2.0"]


def test_counters_that_others_keep() -> None:
    metrics = Metrics()
    counts = {"routes": 1.0}
    metrics.counted("felix_int_dataplane_failures", "Refused.", lambda: counts, "driver")
    metrics.counted("calipy_turns", "Turns.", lambda: {"": 7})
    metrics.counted_gauge("calipy_resources_refused", "Refused.", lambda: {"IPPool": 2}, "kind")
    counts["nftables"] = 3.0
    assert lines(metrics, "felix_int_dataplane_failures") == [
        'felix_int_dataplane_failures_total{driver="nftables"} 3.0',
        'felix_int_dataplane_failures_total{driver="routes"} 1.0',
    ]
    assert lines(metrics, "calipy_turns") == ["calipy_turns_total 7.0"]
    assert lines(metrics, "calipy_resources_refused") == ['calipy_resources_refused{kind="IPPool"} 2.0']


def test_a_counter_is_not_asked_before_somebody_scrapes() -> None:
    def early() -> dict[str, float]:
        raise AssertionError("asked too early")

    Metrics().counted("calipy_turns", "Turns.", early)


@pytest.mark.parametrize(
    "name",
    [
        "felix_resync_state",
        "felix_int_dataplane_apply_time_seconds_bucket",
        "felix_route_table_num_routes",
        "felix_cluster_num_hosts",
        "felix_cluster_num_workload_endpoints",
        "felix_calc_graph_update_time_seconds_count",
        "calipy_loop_lag_seconds_bucket",
        "calipy_policy_programming_seconds_count",
        "process_resident_memory_bytes",
    ],
)
def test_names(name: str) -> None:
    assert lines(Metrics(), name)


def test_problems_are_told_by_reporter() -> None:
    health = Health()
    health.ready["Datastore"] = lambda: "it is away"
    health.ready["FelixStartup"] = lambda: ""
    assert health.problems(health.ready) == {"Datastore": "it is away"}


# limit | override | silence | what is said
SILENCES = [
    (30.0, None, 29.0, ""),
    (30.0, None, 31.0, "no sign of life for 31 s (limit 30 s)"),
    (30.0, 90.0, 31.0, ""),
    (30.0, 1.5, 2.0, "no sign of life for 2 s (limit 1.5 s)"),
    (30.0, 0.0, 1000.0, ""),
]


@pytest.mark.parametrize(("limit", "override", "silent", "said"), SILENCES)
def test_a_stuck_loop_is_not_live_and_overrides_hold_at_once(
    limit: float, override: float | None, silent: float, said: str
) -> None:
    health = Health()
    health.watch("CalculationGraph", lambda: silent, limit)
    health.overrides = {} if override is None else {"CalculationGraph": override, "Other": 1.0}
    assert health.live["CalculationGraph"]() == said
    (row,) = health.rows()
    assert (row.timeout_s, row.overridden, row.live, row.ready) == (
        limit if override is None else override,
        override is not None,
        said,
        None,
    )


def test_a_pulse_is_silent_only_while_a_turn_lasts_even_one_that_fails() -> None:
    pulse, ended = Pulse(), []
    pulse.ended = ended.append
    assert pulse.silent_s() == 0.0
    during: list[float] = []

    def fail() -> None:
        with pulse.turn():
            during.append(pulse.silent_s())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert during[0] > 0.0
    assert (pulse.silent_s(), len(ended)) == (0.0, 1)


def test_a_heartbeat_is_silent_since_its_last_beat() -> None:
    heartbeat = Heartbeat()
    before = heartbeat.silent_s()
    assert heartbeat.silent_s() >= before > 0.0
    heartbeat.beat()
    assert 0.0 <= heartbeat.silent_s() < 60.0
