"""Sets as kernel objects."""

from __future__ import annotations

from collections.abc import Iterable

from netaddr import IPNetwork, cidr_merge

from calipy.felix.calc.change import NodeState, SetDelta, SetKey
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names
from calipy.felix.rules.values import Element, SetSpec


def compile(key: SetKey, state: NodeState) -> Objects:
    """A set with all its members. CIDRs are merged: an interval set takes no overlapping ones."""
    kind = state.sets[key]
    name = names.set_name(key, kind)
    members: Iterable[str] = state.members[key]
    if kind == "prefixes":
        members = (str(network) for network in cidr_merge([IPNetwork(member) for member in members]))
    return {names.set_(name): SetSpec(kind, key.family), **_elements(name, members)}


def amendment(key: SetKey, delta: SetDelta, state: NodeState) -> tuple[Objects, tuple[ObjectName, ...]] | None:
    """What a delta adds and removes, without touching the rest; None for a set of prefixes, which is merged anew."""
    if state.sets[key] == "prefixes":
        return None
    name = names.set_name(key, "addresses")
    return _elements(name, delta.added), tuple(names.element(name, member) for member in sorted(delta.removed))


def _elements(name: str, members: Iterable[str]) -> Objects:
    return {names.element(name, member): Element(name, member) for member in members}
