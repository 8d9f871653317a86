"""What the agent says on its query socket, put together from those who know."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping

from calipy.explain.query import Answer
from calipy.explain.report import (
    AddressReport,
    DriverReport,
    EndpointReport,
    NodeReport,
    RouteReport,
    SessionReport,
    word,
)
from calipy.felix.engine import Engine
from calipy.felix.plans import route_owner
from calipy.model.routes import NextHop, Route
from calipy.node.check import Finding
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
        addresses: Callable[[], tuple[AddressReport, ...]],
        findings: Callable[[], tuple[Finding, ...]],
    ) -> None:
        self._node = node
        self._engine = engine
        self._dataplane, self._endpoints = engine.dataplane, engine.endpoints
        self._health = health
        self._obstacle = obstacle
        self._refused = refused
        self._sessions = sessions
        self._repairs = repairs
        self._addresses = addresses
        self._findings = findings

    def by_name(self) -> dict[str, Answer]:
        """What `explain.query.serve` takes."""
        return {
            "status": self.status,
            "routes": self.routes,
            "endpoints": self.endpoints,
            "sessions": self._sessions,
            "programmed": self.programmed,
            "addresses": self._addresses,
            "checks": self._findings,
        }

    def status(self) -> NodeReport:
        """The node in one answer."""
        return NodeReport(
            node=self._node,
            in_sync=self._dataplane.first_apply.is_set(),
            obstacle=self._obstacle(),
            problems=self._health.problems(self._health.ready),
            degraded=self._health.problems(self._health.degraded),
            refused=self._refused(),
            sessions=self._sessions(),
            endpoints=len(self._endpoints.attached),
            drivers=tuple(
                DriverReport(driver=area.driver.name, reads=area.reads, writes=area.writes, operations=area.operations)
                for area in self._engine.areas
            ),
            compiled=self._engine.planner.compiled,
            repairs=self._repairs(),
            findings=self._findings(),
        )

    def programmed(self) -> Mapping[str, int]:
        """Kind -> the store's revision up to which the kernel holds everything, but for what it refuses."""
        return dict(self._dataplane.programmed_revisions)

    def routes(self) -> Iterator[RouteReport | None]:
        """All routes that the node wants, by family and prefix, bit by bit: there may be many (`query.Answer`)."""
        state = self._dataplane.state
        ranked: list[tuple[bytes, int, Route]] = []
        for route in state.routes.values() if state is not None else ():
            ranked.append((_rank(route.prefix), route.metric, route))
            yield None
        ranked.sort(key=lambda entry: entry[:2])
        refused = self._dataplane.refused
        peers = {session.peer: session.node for session in self._sessions()}
        for _, _, route in ranked:
            yield _report(route, peers, refused.get(route_owner(route.key), ""))

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


def _rank(prefix: str) -> bytes:
    """Orders prefixes by family, address and length."""
    address, _, length = prefix.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return bytes((len(packed), *packed, int(length)))


def _report(route: Route, peers: Mapping[str, str], refused: str) -> RouteReport:
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


def _way(hop: NextHop) -> str:
    via = f"via {hop.gateway} " if hop.gateway else ""
    return f"{via}dev {hop.device}{' onlink' if hop.onlink else ''}"
