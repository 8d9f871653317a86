"""Tier of Calico -> Tier."""

from __future__ import annotations

import math

from calipy.model.policies import Tier
from calipy.resources import tiers


def tier(found: tiers.Tier) -> Tier:
    """A tier."""
    order = found.spec.order
    return Tier(
        name=found.metadata.name,
        order=math.inf if order is None else order,
        default_action="pass" if found.spec.default_action == "Pass" else "deny",
    )


BUILT_IN = {name: tier(found) for name, found in tiers.BUILT_IN.items()}
"""Those that are always there, and always so."""
