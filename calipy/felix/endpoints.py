"""Local endpoints as CNI sees them: attached, routed, detached, each a promise that the kernel has kept."""

from __future__ import annotations

from collections.abc import Callable, Collection

from calipy.felix.calc.routes import host_prefix, metric_of
from calipy.felix.calc.world import Attached, Detached
from calipy.felix.calculator import Calculator
from calipy.felix.dataplane import Dataplane
from calipy.felix.objects import Owner
from calipy.felix.plans import route_owner
from calipy.felix.rules.compile import endpoint_owner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import Link
from calipy.model.routes import MAIN_TABLE, RouteKey
from calipy.resources.cidrs import family_of


class Endpoints:
    """The way of an endpoint into calculation and dataplane, and out again."""

    def __init__(self, calculator: Calculator, dataplane: Dataplane) -> None:
        self._calculator = calculator
        self._dataplane = dataplane
        self._attached: dict[EndpointId, WorkloadEndpoint] = {}
        self._leaving: dict[tuple[EndpointId, str], tuple[Owner, ...]] = {}
        """Owners of what a container had, until all of it is out of the kernel."""
        self._listeners: list[Callable[[], None]] = []

    @property
    def attached(self) -> Collection[WorkloadEndpoint]:
        """All endpoints of this node."""
        return self._attached.values()

    def listen(self, listener: Callable[[], None]) -> None:
        """`listener` is called whenever one was attached or detached."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def restore(self, endpoints: list[WorkloadEndpoint]) -> None:
        """Takes in what an agent before this one had attached; nobody waits for it."""
        self._attached.update((endpoint.id, endpoint) for endpoint in endpoints)
        self._calculator.post([Attached(endpoint) for endpoint in endpoints])
        self._tell()

    def current(self, id_: EndpointId) -> WorkloadEndpoint | None:
        """What is attached under an identity."""
        return self._attached.get(id_)

    def behind(self, link: Link) -> WorkloadEndpoint | None:
        """The endpoint whose link this is; None for that of an earlier container with the same name for its link."""
        mine = (e for e in self._attached.values() if e.interface == link.name and e.container_id == link.alias)
        return next(mine, None)

    async def add(self, endpoint: WorkloadEndpoint) -> None:
        """Returns when the endpoint's chains, dispatch entries and sets are in the kernel. Raises Refused."""
        self._attached[endpoint.id] = endpoint
        self._tell()
        serial = await self._calculator.post([Attached(endpoint)])
        await self._dataplane.programmed([endpoint_owner(endpoint.id)], serial)

    async def routed(self, endpoint: WorkloadEndpoint) -> None:
        """Returns when the host's routes to the endpoint are in the kernel, which they can be only once its link is up.
        Raises Refused."""
        for owner in self._route_owners(endpoint):
            await self._dataplane.present(owner)

    async def remove(self, id_: EndpointId, container_id: str) -> None:
        """Returns when dispatch entries, chains and host routes are out, the first time that it is asked and each time
        after that. Nothing happens where another container holds the identity by now. Raises Refused."""
        endpoint, key = self._attached.get(id_), (id_, container_id)
        if endpoint is not None and endpoint.container_id == container_id:
            self._leaving[key] = (endpoint_owner(id_), *self._route_owners(endpoint))
            del self._attached[id_]
            self._tell()
            moved = self._calculator.post([Detached(id_)])
        elif key in self._leaving:
            moved = self._calculator.post([])
        else:
            return
        await self._dataplane.programmed(self._leaving[key], await moved)
        self._leaving.pop(key, None)

    def refusal(self, id_: EndpointId) -> str:
        """Which of its chains or routes the kernel has not taken, and why; empty if it has all."""
        endpoint = self._attached.get(id_)
        if endpoint is None:
            return f"endpoint {id_} is not known"
        refused = self._dataplane.refused
        return "; ".join(refused[o] for o in (endpoint_owner(id_), *self._route_owners(endpoint)) if o in refused)

    def _route_owners(self, endpoint: WorkloadEndpoint) -> list[Owner]:
        state = self._dataplane.state
        owners = []
        for address in endpoint.addresses:
            family = family_of(address)
            metric = metric_of(state.settings, family) if state is not None else 1024
            owners.append(route_owner(RouteKey(MAIN_TABLE, host_prefix(address), metric)))
        return owners
