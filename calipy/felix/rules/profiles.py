"""A profile's rules: one chain a direction, as a policy's."""

from __future__ import annotations

from msgspec import Struct

from calipy.felix.calc.change import NodeState
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names, policies
from calipy.felix.rules.steps import Steps
from calipy.model.policies import Profile


def steps(profile: Profile, state: NodeState) -> Steps[Objects]:
    """Both chains, bit by bit: an endpoint asks a profile about what comes and what goes."""
    found: dict[ObjectName, Struct] = {}
    for direction in policies.DIRECTIONS:
        name = names.chain(names.profile_chain(profile.name, direction))
        found[name] = yield from policies.chain_steps(profile, direction, profile.rules(direction), state)
    return found


def closed(profile: Profile) -> Objects:
    """The closed form: whom the profile is asked about gets and sends nothing."""
    return {
        names.chain(names.profile_chain(profile.name, direction)): policies.closed_chain(profile, direction)
        for direction in policies.DIRECTIONS
    }
