"""How the agent's answers are put together."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from calipy.agent.answers import Answers, _rank
from calipy.explain.report import RouteReport
from calipy.felix.plans import route_owner
from calipy.model.origins import Origin
from calipy.model.routes import NextHop, Route
from calipy.telemetry import Health

networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ipaddress.ip_network(pair, strict=False))


@given(networks, networks)
def test_prefixes_rank_by_family_address_and_length(one: Any, other: Any) -> None:
    def key(network: Any) -> tuple[int, int, int]:
        return network.version, int(network.network_address), network.prefixlen

    assert (_rank(str(one)) < _rank(str(other))) == (key(one) < key(other))


def test_routes_are_told_in_order_and_how_they_stand() -> None:
    def route(prefix: str, **more: Any) -> Route:
        hop = NextHop("10.9.0.2", "eth0", 2)
        known = {"kind": "unicast", "next_hops": (hop,), "protocol": 12, "origin": Origin("bgp", "10.9.0.2")}
        return Route(prefix=prefix, **{**known, **more})

    routes = [
        route("10.2.0.0/26"),
        route("fd00::/122"),
        route("10.1.0.0/26", waits_for="link eth1"),
        route("9.0.0.0/8"),
    ]
    dataplane = SimpleNamespace(
        state=SimpleNamespace(routes={found.key: found for found in routes}),
        refused={route_owner(routes[0].key): "Network is unreachable"},
    )
    engine = SimpleNamespace(dataplane=dataplane, endpoints=None)
    answers = Answers(
        "n1", cast(Any, engine), Health(), obstacle=str, refused=dict, sessions=tuple, repairs=dict,
        addresses=tuple, findings=tuple,
    )  # fmt: skip
    told = [report for report in answers.routes() if report is not None]
    assert [(report.prefix, report.state, report.reason) for report in told] == [
        ("9.0.0.0/8", "in force", ""),
        ("10.1.0.0/26", "waits", "link eth1"),
        ("10.2.0.0/26", "refused", "Network is unreachable"),
        ("fd00::/122", "in force", ""),
    ]
    assert told[0] == RouteReport(
        prefix="9.0.0.0/8", kind="unicast", ways=("via 10.9.0.2 dev eth0",), protocol=12, metric=told[0].metric,
        origin="bgp 10.9.0.2", word="told by BGP peer 10.9.0.2", state="in force",
    )  # fmt: skip
    dataplane.state = None
    assert list(answers.routes()) == []
