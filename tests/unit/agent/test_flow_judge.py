"""A tracked flow as the packet that began it."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.agent.flow_judge import crossing, judge_of
from calipy.explain.walk import Ruleset
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.rules import names
from calipy.felix.rules.statics import skeleton
from calipy.felix.rules.values import Chain, Hook, Jump, Rule
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.origins import Origin
from calipy.netlink.ctnetlink import Direction, Flow

POD, PEER, HOST, OUT, SERVICE = "10.0.0.1", "10.0.0.2", "10.9.0.1", "10.9.0.9", "10.96.0.1"
INTERFACES = {POD: "calia", PEER: "calib", HOST: ""}


def flow(source: str, destination: str, answers: str = "", back_to: str = "", **more: Any) -> Flow:
    """From a source to a destination; who answers, and to whom, where that was translated."""
    ports = {"source_port": 40000, "destination_port": 80}
    back = Direction(source=answers or destination, destination=back_to or source, protocol=6, source_port=8080)
    return Flow(
        family=4, original=Direction(source=source, destination=destination, protocol=6, **ports), reply=back, **more
    )


# flow -> incoming, outgoing, source, destination
CROSSINGS: list[tuple[Flow, tuple[str, str, str, str]]] = [
    (flow(POD, PEER), ("calia", "calib", POD, PEER)),
    (flow(POD, SERVICE, PEER), ("calia", "calib", POD, PEER)),
    (flow(POD, OUT, OUT, HOST), ("calia", "/", POD, OUT)),
    (flow(OUT, HOST, PEER, HOST), ("/", "calib", OUT, PEER)),
    (flow(HOST, POD), ("", "calia", HOST, POD)),
    (flow(POD, HOST), ("calia", "", POD, HOST)),
    (flow(POD, SERVICE, POD, HOST), ("calia", "calia", POD, POD)),
]


@pytest.mark.parametrize(("found", "crosses"), CROSSINGS)
def test_how_it_crosses_the_node(found: Flow, crosses: tuple[str, str, str, str]) -> None:
    way = crossing(found, INTERFACES)
    assert (way.incoming, way.outgoing, way.packet.source, way.packet.destination) == crosses
    assert (way.packet.source_port, way.packet.destination_port, way.state) == (40000, 8080, "new")


def test_what_another_connection_has_announced_is_related_and_stays() -> None:
    assert crossing(flow(POD, PEER, status=1), INTERFACES).state == "related"


def workload(name: str, address: str) -> WorkloadEndpoint:
    id_ = EndpointId("k8s", f"default/{name}", "eth0")
    return WorkloadEndpoint(id=id_, container_id=name, interface=f"cali{name}", addresses=(address,))


def test_it_is_judged_by_the_rules() -> None:
    judge = judge_of(Ruleset(skeleton(FelixSettings())), [workload("a", POD)], [HOST])
    assert [judge(flow(POD, OUT)), judge(flow(OUT, POD)), judge(flow(OUT, PEER)), judge(flow(HOST, POD))] == [
        False, False, True, True,
    ]  # fmt: skip
    assert judge(flow(POD, OUT, status=1))


def test_what_cannot_be_judged_stays_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lost = Rule((), Jump("nowhere"), Origin("static", "x"))
    broken = {names.chain("filter-FORWARD"): Chain((lost,), Hook(type="filter", hook="forward", priority=0))}
    assert judge_of(Ruleset(broken), [workload("a", POD)], [])(flow(POD, OUT))
    assert "a connection can't be judged anew, and stays: chain nowhere isn't there" in caplog.text
