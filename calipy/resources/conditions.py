"""metav1.Condition: one observed fact about an object, as Kubernetes writes it in a status."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Condition(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Kubernetes meta/v1 Condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int = 0
