"""When a lab has come to rest: its routes are there, its policies in force, its matrix is complete."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from calipy.console.failures import Failure
from calipy.datastore.stores import Stored
from calipy.explain.query import Unanswered
from calipy.explain.report import RouteReport
from calipy.lab.cluster import Lab
from calipy.lab.reachability import Probe, matrix
from calipy.lab.topology import Encapsulation
from calipy.lab.waiting import eventually, together
from calipy.resources import block_affinities, node_reports

TIMEOUT_S: Final = 20.0
_ROUND_S: Final = 0.5
"""The patience of one round of probes: a lost one is tried again in the next."""


async def reaches(
    lab: Lab, timeout_s: float = TIMEOUT_S, *, blocked: Collection[tuple[str, str]] = ()
) -> tuple[Probe, ...]:  # fmt: skip
    """The matrix, once everybody reaches everybody, or as it is when the time is up. For pairs (source, target) that
    are `blocked` nothing is waited: their probes come back as they are."""
    found: tuple[Probe, ...] = ()

    async def complete() -> bool | str:
        nonlocal found
        found = await matrix(lab, _ROUND_S)
        return all(probe.good for probe in found if (probe.source, probe.target) not in blocked)

    try:
        await eventually(complete, "reachability", timeout_s)
    except Failure:
        return found
    return found


async def programmed(lab: Lab, stored: Stored[Any], timeout_s: float = TIMEOUT_S) -> None:
    """Waits until every node that has power reports that it holds an object as it was written. Raises Failure that
    names those that lag."""
    key = stored.key
    async with lab.store() as store:

        async def there() -> bool | str:
            found = {item.key.name: item.value async for page in store.list(node_reports.KIND) for item in page.items}
            holds = {name for name, report in found.items() if report.reached(key.kind, stored.revision)}
            lagging = [name for name in lab.nodes if lab.on(name) and (name not in holds or found[name].shortfall(key))]
            return f"is not programmed on {', '.join(lagging)}" if lagging else True

        await eventually(there, str(key), timeout_s)


async def carried(lab: Lab, encapsulation: Encapsulation, timeout_s: float = TIMEOUT_S) -> None:
    """Waits until every node has a route to every other's blocks, and by the means that `encapsulation` asks for.
    Raises Failure that names those missing."""
    async with lab.store() as store:
        claims = [stored.value async for page in store.list(block_affinities.KIND) for stored in page.items]
    blocks = {claim.spec.cidr: claim.spec.node for claim in claims if claim.confirmed}

    async def on_node(name: str) -> None:
        wanted = {
            (cidr, _origin(lab, encapsulation, name, holder)) for cidr, holder in blocks.items() if holder != name
        }

        async def there() -> bool | str:
            try:
                routes = await lab.ask(name, "routes", tuple[RouteReport, ...])
            except Unanswered as error:
                return str(error)
            found = {(route.prefix, route.origin.partition(" ")[0]) for route in routes if route.state == "in force"}
            missing = ", ".join(f"{prefix} by {origin}" for prefix, origin in sorted(wanted - found))
            return f"no route in force to {missing}" if missing else True

        await eventually(there, f"node {name}", timeout_s)

    await together(on_node(name) for name in lab.nodes if lab.on(name))


def _origin(lab: Lab, encapsulation: Encapsulation, here: str, there: str) -> str:
    """The class of the route from a node to another's block (`RouteReport.origin`)."""
    near = lab.nodes[here].segment == lab.nodes[there].segment
    match encapsulation:
        case "none":
            return "bgp"
        case "vxlan":
            return "vxlan"
        case "vxlan-crosssubnet":
            return "vxlan-same-subnet" if near else "vxlan"
