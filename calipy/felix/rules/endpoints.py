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
    ConnectionState,
    Drop,
    Element,
    Family,
    Goto,
    Ports,
    Protocol,
    Reject,
    Rule,
)
from calipy.model.endpoints import WorkloadEndpoint
from calipy.model.origins import Origin

_UDP, _IPIP = 17, 4


def compile(endpoint: WorkloadEndpoint, settings: FelixSettings) -> Objects:
    """Chains for packets from and to the endpoint, and the entries that lead there."""
    origin = Origin("endpoint", endpoint.id.workload)
    from_rules = (*_sane(origin, settings), *_from_rules(endpoint, settings, origin))
    return dict(_objects(endpoint.interface, from_rules, tuple(_sane(origin, settings))))


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


def _sane(origin: Origin, settings: FelixSettings) -> Iterator[Rule]:
    if not settings.disable_conntrack_invalid_check:
        yield Rule((ConnectionState(("invalid",)),), deny(settings), Origin("invalid", origin.name))


def _from_rules(endpoint: WorkloadEndpoint, settings: FelixSettings, origin: Origin) -> Iterator[Rule]:
    """No encapsulation made by the workload, and no source address but its own."""
    if not settings.allow_vxlan_from_workloads:
        vxlan = (Protocol(_UDP), Ports("destination", settings.vxlan_port, settings.vxlan_port))
        yield Rule(vxlan, deny(settings), Origin("encapsulation", origin.name))
    if not settings.allow_ipip_from_workloads:
        yield Rule((Protocol(_IPIP),), deny(settings), Origin("encapsulation", origin.name))
    for family in (4, 6):
        own = [address for address in endpoint.addresses if (6 if ":" in address else 4) == family]
        others = tuple(Address("source", address, negated=True) for address in own)
        yield Rule((Family(family), *others), deny(settings), Origin("spoofed", origin.name))
