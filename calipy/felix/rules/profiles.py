"""A profile's rules: one chain a direction, as a policy's."""

from __future__ import annotations

from calipy.felix.calc.change import NodeState
from calipy.felix.objects import Objects
from calipy.felix.rules import names, policies
from calipy.model.policies import Profile


def compile(profile: Profile, state: NodeState) -> Objects:
    """Both chains: an endpoint asks a profile about what comes and what goes."""
    return {
        names.chain(names.profile_chain(profile.name, direction)): policies.chain(
            profile, direction, profile.rules(direction), state
        )
        for direction in policies.DIRECTIONS
    }


def closed(profile: Profile) -> Objects:
    """The closed form: whom the profile is asked about gets and sends nothing."""
    return {
        names.chain(names.profile_chain(profile.name, direction)): policies.closed_chain(profile, direction)
        for direction in policies.DIRECTIONS
    }
