"""A tracked flow as the packet that began it."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.agent.flow_judge import crossing, judge_of
from calipy.explain.walk import Crossing, Ruleset, Walk
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.rules import names
from calipy.felix.rules.statics import skeleton
from calipy.felix.rules.values import Address, Chain, Drop, Hook, Interface, Jump, Match, Ports, Protocol, Rule
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


class Counted(Ruleset):
    """Counts the packets that walk."""

    walks = 0

    def walk(self, packet: Crossing) -> Walk:
        self.walks += 1
        return super().walk(packet)


def rules(*matches: Match) -> Counted:
    """What reaches the pod behind `calia` is dropped, if it matches."""
    dropped = Rule((Interface("out", "calia"), *matches), Drop(), Origin("static", "x"))
    return Counted({names.chain("filter-FORWARD"): Chain((dropped,), Hook(type="filter", hook="forward", priority=0))})


def connection(source_port: int, port: int, protocol: int = 6, source: str = OUT) -> Flow:
    there = Direction(source=source, destination=POD, protocol=protocol, source_port=source_port, destination_port=port)
    back = Direction(source=POD, destination=source, protocol=protocol, source_port=port, destination_port=source_port)
    return Flow(family=4, original=there, reply=back)


PORTS = [(source, port) for source in (1000, 1001, 2000, 2001) for port in (80, 81, 90)]
# matches -> how many of PORTS are different questions
ASKED: list[tuple[tuple[Match, ...], int]] = [
    ((), 1),
    ((Protocol(17),), 1),
    ((Protocol(6), Ports("destination", 80, 81)), 3),
    ((Ports("source", 1000, 1999),), 4),
    ((Ports("destination", 80, 80), Ports("source", 1000, 1000)), 6),
    ((Address("source", "10.9.0.9/32"), Ports("destination", 90, 90)), 3),
    ((Address("source", "10.8.0.0/16"), Ports("destination", 90, 90)), 1),
]


@pytest.mark.parametrize(("matches", "questions"), ASKED)
def test_flows_that_ask_the_same_of_the_rules_are_judged_once(matches: tuple[Match, ...], questions: int) -> None:
    """The answers are those that each would have got by itself."""
    counted = rules(*matches)
    judge = judge_of(counted, [workload("a", POD)], [HOST])
    for _ in range(2):
        for source, port in PORTS:
            alone = judge_of(rules(*matches), [workload("a", POD)], [HOST])
            assert judge(connection(source, port)) == alone(connection(source, port))
    assert counted.walks == questions


def test_peers_and_protocols_are_different_questions() -> None:
    counted = rules(Address("source", "10.9.0.9/32"), Protocol(6))
    judge = judge_of(counted, [workload("a", POD)], [HOST])
    found = [judge(connection(1, 2, *which)) for which in ((6, OUT), (17, OUT), (6, PEER), (6, OUT), (17, OUT))]
    assert found == [False, True, True, False, True]
    assert counted.walks == 3


def test_what_cannot_be_judged_stays_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lost = Rule((), Jump("nowhere"), Origin("static", "x"))
    broken = {names.chain("filter-FORWARD"): Chain((lost,), Hook(type="filter", hook="forward", priority=0))}
    assert judge_of(Ruleset(broken), [workload("a", POD)], [])(flow(POD, OUT))
    assert "a connection can't be judged anew, and stays: chain nowhere isn't there" in caplog.text
