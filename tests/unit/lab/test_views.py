"""What the lab's tables say."""

from __future__ import annotations

import ipaddress

import pytest

from calipy.console.tables import Mark
from calipy.explain.report import NodeReport
from calipy.lab import views
from calipy.lab.reachability import Probe
from calipy.node.check import Finding


def probe(source, target, family, *, seen="", expected=(), answered=True, reason="", target_kind="pod"):
    return Probe(
        source=source, source_kind="pod", target=target, target_kind=target_kind, family=family, answered=answered,
        seen=seen, expected=expected, reason=reason,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "complaint"),
    [
        pytest.param(probe("a", "b", 4, seen="1.1.1.1", expected=("1.1.1.1",)), "", id="well"),
        pytest.param(probe("n1", "b", 4, seen="1.1.1.1"), "", id="any source is right"),
        pytest.param(
            probe("a", "b", 4, seen="9.9.9.9", expected=("1.1.1.1", "2.2.2.2")),
            "a -> b, IPv4: seen from 9.9.9.9, and not from 1.1.1.1 or 2.2.2.2", id="translated",
        ),
        pytest.param(
            probe("a", "b", 6, answered=False, reason="no answer in 2 s", expected=("fd00::1",)),
            "a -> b, IPv6: no answer in 2 s", id="lost",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_probe(one, complaint):
    assert one.complaint == complaint
    assert one.good == (complaint == "")


def test_a_cell_names_the_families_that_fail():
    matrix = views.reachability(
        "", [probe("a", "b", 4), probe("a", "b", 6, answered=False), probe("b", "a", 4), probe("b", "a", 6)]
    )

    assert matrix.marks == {("a", "b"): Mark(False, "v6"), ("b", "a"): Mark(True)}


def test_outside_stands_last_and_shows_what_it_saw():
    matrix = views.reachability(
        "",
        [
            probe("a", "b", 4),
            probe("a", "outside", 4, seen="10.9.1.11", expected=("10.9.1.11",), target_kind="outside"),
            probe("a", "outside", 6, answered=False, target_kind="outside"),
            probe("b", "a", 4),
        ],
    )

    assert list(matrix.columns) == ["a", "b", "outside"]
    assert matrix.marks["a", "outside"] == Mark(False, "10.9.1.11 -")


def test_who_is_to_be_blocked_is_marked_so_and_fails_where_it_gets_through():
    probes = [
        probe("a", "b", 4, answered=False), probe("a", "b", 6, answered=False), probe("b", "a", 4, answered=False),
        probe("b", "a", 6), probe("c", "a", 4),
    ]  # fmt: skip
    matrix = views.reachability("", probes, {("a", "b"), ("b", "a")})

    assert matrix.marks == {
        ("a", "b"): Mark(None, "blocked"), ("b", "a"): Mark(False, "open v6"), ("c", "a"): Mark(True),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("address", "block"),
    [
        pytest.param("10.244.1.5", "10.244.1.0/26", id="own"),
        pytest.param("10.244.2.5", "10.244.2.0/26 of n2", id="borrowed from another node"),
        pytest.param("10.244.3.5", "10.244.3.0/26 of nobody", id="a block without affinity"),
        pytest.param("fd00::5", "none", id="outside all blocks"),
    ],
)
def test_the_block_of_an_address(address, block):
    holders = {"10.244.1.0/26": "host:n1", "10.244.2.0/26": "host:n2", "10.244.3.0/26": ""}
    blocks = {ipaddress.ip_network(cidr): holder for cidr, holder in holders.items()}

    assert views._block(address, "n1", blocks) == block


def test_what_a_node_complains_of_and_what_is_wrong_with_its_host():
    findings = tuple(
        Finding(check="foreign-drop", subject=severity, words="drops", remedy="accept it", severity=severity)
        for severity in ("error", "notice")
    )
    report = NodeReport(
        node="n1", in_sync=True, problems={"BGP": "no session"}, findings=findings,
        degraded={"BGP": "filters are not applied", "Checks": "error: drops; accept it"},
    )  # fmt: skip
    off = views.NodeRow(node="n1", rack="a", addresses=(), power=True, carrier=True, agent="running", bgp="running")
    row = views.told(off, report)

    assert (row.agent, row.problems, row.degraded) == (
        "not ready", ("BGP: no session",), ("BGP: filters are not applied",),
    )  # fmt: skip
    assert row.findings == findings
    told = [(each.severity, each.problem) for each in views.problem_rows([row])]
    assert told == [
        ("not ready", "BGP: no session"), ("degraded", "BGP: filters are not applied"),
        ("error", "error: drops; accept it"),
    ]  # fmt: skip
    assert views.problem_rows([row], notices=True)[-1].severity == "notice"
    assert views.told(off, NodeReport(node="n1", in_sync=True, degraded=report.degraded)).agent == "ready"
