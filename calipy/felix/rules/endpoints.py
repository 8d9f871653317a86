"""A workload endpoint's chains and dispatch entries."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names
from calipy.felix.rules.values import (
    Action,
    Address,
    Chain,
    Drop,
    Element,
    Family,
    Goto,
    Reject,
    Rule,
)
from calipy.model.endpoints import WorkloadEndpoint
from calipy.model.origins import Origin


def compile(endpoint: WorkloadEndpoint, settings: FelixSettings) -> Objects:
    """Chains for packets from and to the endpoint, and the entries that lead there. What is the same for every endpoint
    stands once, before the dispatch (`statics`)."""
    origin = Origin("endpoint", endpoint.id.workload)
    return dict(_objects(endpoint.interface, tuple(_spoofed(endpoint, settings, origin)), ()))


def closed(endpoint: WorkloadEndpoint) -> Objects:
    """The closed form: nothing passes, for the kernel refused what should."""
    rule = Rule((), Drop(), Origin("refused", endpoint.id.workload))
    return dict(_objects(endpoint.interface, (rule,), (rule,)))


def deny(settings: FelixSettings) -> Action:
    """What becomes of denied packets."""
    return Reject() if settings.filter_deny_action == "REJECT" else Drop()


def _objects(
    interface: str, from_rules: tuple[Rule, ...], to_rules: tuple[Rule, ...]
) -> Iterator[tuple[ObjectName, Struct]]:
    for dispatch, name, rules in (
        (names.FROM_WORKLOAD, names.from_chain(interface), from_rules),
        (names.TO_WORKLOAD, names.to_chain(interface), to_rules),
    ):
        yield names.chain(name), Chain(rules)
        map_ = names.map_of(dispatch)
        yield names.element(map_, interface), Element(map_, interface, Goto(name))


def _spoofed(endpoint: WorkloadEndpoint, settings: FelixSettings, origin: Origin) -> Iterator[Rule]:
    """No source address but its own."""
    for family in (4, 6):
        own = [address for address in endpoint.addresses if (6 if ":" in address else 4) == family]
        others = tuple(Address("source", address, negated=True) for address in own)
        yield Rule((Family(family), *others), deny(settings), Origin("spoofed", origin.name))
