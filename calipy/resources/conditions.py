"""metav1.Condition: one observed fact about an object, as Kubernetes writes it in a status."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.resources.definitions import Constraint


class Condition(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """One observed fact (Kubernetes' meta/v1 Condition)."""

    type: str
    """What the condition is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: str = ""
    """Why, in one word for programs."""
    message: str = ""
    """Why, in words for people."""
    last_transition_time: str | None = None
    """Since when status is what it is (RFC 3339)."""
    observed_generation: int = 0
    """The object's metadata.generation that was judged."""


CONSTRAINTS = (
    Constraint(path="status.conditions[].lastTransitionTime", format="date-time"),
    Constraint(path="status.conditions[].observedGeneration", format="int64", minimum=0),
)
"""Of kinds whose status has conditions."""
