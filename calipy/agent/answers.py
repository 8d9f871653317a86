"""What the agent says on its query socket, put together from those who know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network

from calipy.explain.report import DriverReport, EndpointReport, NodeReport, RouteReport, SessionReport, word
from calipy.felix.engine import Engine
from calipy.felix.plans import route_owner
from calipy.model.routes import NextHop, Route
from calipy.telemetry import Health


class Answers:
    """Questions by name, each with who answers it."""

    def __init__(
        self,
        node: str,
        engine: Engine,
        health: Health,
        *,
        obstacle: Callable[[], str],
        refused: Callable[[], Mapping[str, str]],
        sessions: Callable[[], tuple[SessionReport, ...]],
        repairs: Callable[[], Mapping[str, int]],
    ) -> None:
        self._node = node
        self._engine = engine
        self._dataplane, self._endpoints = engine.dataplane, engine.endpoints
        self._health = health
        self._obstacle = obstacle
        self._refused = refused
        self._sessions = sessions
        self._repairs = repairs

    def by_name(self) -> dict[str, Callable[[], object]]:
        """What `explain.query.serve` takes."""
        return {
            "status": self.status,
            "routes": self.routes,
            "endpoints": self.endpoints,
            "sessions": self._sessions,
        }

    def status(self) -> NodeReport:
        """The node in one answer."""
        return NodeReport(
            node=self._node,
            in_sync=self._dataplane.first_apply.is_set(),
            obstacle=self._obstacle(),
            problems=self._health.problems(self._health.ready),
            refused=self._refused(),
            sessions=self._sessions(),
            endpoints=len(self._endpoints.attached),
            drivers=tuple(
                DriverReport(driver=area.driver.name, reads=area.reads, writes=area.writes, operations=area.operations)
                for area in self._engine.areas
            ),
            compiled=self._engine.planner.compiled,
            repairs=self._repairs(),
        )

    def routes(self) -> tuple[RouteReport, ...]:
        """All routes that the node wants, by family and prefix."""
        state = self._dataplane.state
        found = state.routes.values() if state is not None else ()
        peers = {session.peer: session.node for session in self._sessions()}
        ordered = sorted(found, key=lambda route: (route.family, ip_network(route.prefix)))
        return tuple(self._route(route, peers) for route in ordered)

    def _route(self, route: Route, peers: Mapping[str, str]) -> RouteReport:
        refused = self._dataplane.refused.get(route_owner(route.key), "")
        return RouteReport(
            prefix=route.prefix,
            kind=route.kind,
            ways=tuple(map(_way, route.next_hops)),
            protocol=route.protocol,
            metric=route.metric,
            origin=str(route.origin),
            word=word(route.origin.kind, route.origin.name, peers),
            state="waits" if route.waits_for else "refused" if refused else "in force",
            reason=route.waits_for or refused,
        )

    def endpoints(self) -> tuple[EndpointReport, ...]:
        """All local endpoints, by identity."""
        return tuple(
            EndpointReport(
                id=str(endpoint.id),
                container_id=endpoint.container_id,
                interface=endpoint.interface,
                addresses=endpoint.addresses,
                refused=self._endpoints.refusal(endpoint.id),
            )
            for endpoint in sorted(self._endpoints.attached, key=lambda endpoint: endpoint.id)
        )


def _way(hop: NextHop) -> str:
    via = f"via {hop.gateway} " if hop.gateway else ""
    return f"{via}dev {hop.device}{' onlink' if hop.onlink else ''}"
