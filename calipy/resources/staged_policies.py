"""What staged policies have in common: policies that are tried out before they are in force, and forbid nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct, structs

from calipy.resources.definitions import Column, Constraint, Validation
from calipy.resources.metadata import Problem

StagedAction = Literal["Set", "Delete", "Learn", "Ignore"]

_STAYS = ("staged_action", "tier")
"""What a spec may say whose staged action is Delete: which policy goes is told by its name and its tier."""


def blank_problems(spec: Struct) -> Iterator[Problem]:
    """What is wrong with a spec whose staged action is Delete."""
    for each in structs.fields(spec):
        value = getattr(spec, each.name)
        if each.name not in _STAYS and value != each.default:
            shown = msgspec.json.decode(msgspec.json.encode(value))
            reason = "has no meaning with stagedAction Delete: the name says which policy goes"
            yield Problem(f"spec.{each.encode_name}", shown, reason, "leave it out")


COLUMNS = (
    Column("Tier", ".spec.tier", description="The tier that the policy is for"),
    Column("Order", ".spec.order", "number", description="Its place in the tier, lower first"),
    Column("Action", ".spec.stagedAction", description="What becomes of the policy of this name", wide=True),
)


FILLED_IN = Constraint(path="spec.stagedAction", default="Set")


def staged_validations(*others: str) -> tuple[Validation, ...]:
    """Those that Calico's staged policies have besides their policies', with these fields of their own."""
    shared = ("order", "selector", "serviceAccountSelector", "ingress", "egress", "types", "performanceHints")
    return tuple(blank_validations(*shared, *others))


def blank_validations(*names: str) -> Iterator[Validation]:
    """With staged action Delete none of these fields is there."""
    for name in names:
        yield Validation(
            path="spec", rule=f"!has(self.stagedAction) || self.stagedAction != 'Delete' || !has(self.{name})",
            field=f".{name}", reason="FieldValueForbidden",
            message="has no meaning with stagedAction Delete: the name says which policy goes; leave it out",
        )  # fmt: skip
