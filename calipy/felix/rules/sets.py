"""Sets as kernel objects."""

from __future__ import annotations

from collections.abc import Mapping

from netaddr import IPNetwork, cidr_merge

from calipy.felix.calc.change import NodeState, SetDelta, SetKey
from calipy.felix.objects import Members, ObjectName, Objects
from calipy.felix.rules import names
from calipy.felix.rules.values import SetSpec


def compile(key: SetKey, state: NodeState) -> Objects:
    """A set with all its members. CIDRs are merged: an interval set takes no overlapping ones."""
    kind = state.sets[key]
    name = names.set_name(key, kind)
    members = state.members[key]
    if kind == "prefixes":
        members = frozenset(str(network) for network in cidr_merge([IPNetwork(member) for member in members]))
    return {names.set_(name): SetSpec(kind, key.family), names.members(name): Members(members)}


def moved(key: SetKey, delta: SetDelta, state: NodeState) -> Mapping[ObjectName, SetDelta]:
    """What a delta of the state is to the members in the kernel, where that can be told: prefixes are merged anew."""
    kind = state.sets[key]
    return {names.members(names.set_name(key, kind)): delta} if kind != "prefixes" else {}
