"""A workload endpoint's chains and dispatch entries."""

from __future__ import annotations

from msgspec import Struct

from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names
from calipy.felix.rules.values import (
    Action,
    Chain,
    Drop,
    Element,
    Goto,
    Reject,
    Rule,
)
from calipy.model.endpoints import WorkloadEndpoint
from calipy.model.origins import Origin


def compile(endpoint: WorkloadEndpoint, settings: FelixSettings) -> Objects:
    """Chains for packets from and to the endpoint, and the entries that lead there. What is the same for every endpoint
    stands once, before the dispatch (`statics`)."""
    return {**_objects(endpoint.interface, (), ()), **_sources(endpoint)}


def closed(endpoint: WorkloadEndpoint) -> Objects:
    """The closed form: nothing passes, for the kernel refused what should."""
    rule = Rule((), Drop(), Origin("refused", endpoint.id.workload))
    return _objects(endpoint.interface, (rule,), (rule,))


def deny(settings: FelixSettings) -> Action:
    """What becomes of denied packets."""
    return Reject() if settings.filter_deny_action == "REJECT" else Drop()


def _objects(interface: str, from_rules: tuple[Rule, ...], to_rules: tuple[Rule, ...]) -> dict[ObjectName, Struct]:
    from_chain, to_chain = names.from_chain(interface), names.to_chain(interface)
    return {
        names.chain(from_chain): Chain(from_rules),
        names.element(_FROM_MAP, interface): Element(Goto(from_chain)),
        names.chain(to_chain): Chain(to_rules),
        names.element(_TO_MAP, interface): Element(Goto(to_chain)),
    }


_FROM_MAP, _TO_MAP = names.map_of(names.FROM_WORKLOAD), names.map_of(names.TO_WORKLOAD)
_SOURCE = Element()


def _sources(endpoint: WorkloadEndpoint) -> dict[ObjectName, Struct]:
    """No source address but its own."""
    return {
        names.element(names.SOURCES[6 if ":" in address else 4], f"{endpoint.interface} {address}"): _SOURCE
        for address in endpoint.addresses
    }
