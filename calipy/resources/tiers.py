"""Tier (projectcalico.org/v3): an ordered layer of policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from calipy.resources.conditions import CONSTRAINTS, Condition
from calipy.resources.definitions import Column, Constraint, Definition, Validation
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, ObjectMeta, Problem, Resource

DEFAULT = "default"
"""The tier of policies that name none, and of Kubernetes' own."""


class TierSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Where the tier stands, and what it does in the end (Calico's TierSpec)."""

    order: float | None = None
    """Where the tier stands among tiers: lower first. Left out, it comes last; of equals the name decides."""
    default_action: Literal["Deny", "Pass"] = "Deny"
    """What becomes of packets of endpoints that policies of the tier govern, where none of their rules decides: Deny
    drops them, Pass leaves them to the next tier. Default: Deny."""


class TierStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """What a controller has seen of it (Calico's TierStatus)."""

    conditions: tuple[Condition, ...] = ()
    """Ready: the tier can take policies."""


class Tier(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Tier"):
    """A layer of policies. Tiers decide one after another, by order: a packet goes to the next one where a rule or the
    default action says Pass, or where no policy of the tier governs its endpoint. default, kube-admin and
    kube-baseline are always there."""

    spec: TierSpec = TierSpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"
    status: TierStatus | UnsetType = UNSET


def _built_in(name: str, order: float, default_action: Literal["Deny", "Pass"]) -> Tier:
    return Tier(metadata=ObjectMeta(name=name), spec=TierSpec(order=order, default_action=default_action))


BUILT_IN = {
    tier.metadata.name: tier
    for tier in (
        _built_in("kube-admin", 1_000.0, "Pass"),
        _built_in(DEFAULT, 1_000_000.0, "Deny"),
        _built_in("kube-baseline", 10_000_000.0, "Pass"),
    )
}
"""Tiers that are always there: name -> what it is, and has to stay."""


def problems(tier: Tier) -> Iterator[Problem]:
    """Calico's validation of Tier: the built-in ones are what they are."""
    yield from metadata_problems(tier.metadata)
    built_in = BUILT_IN.get(tier.metadata.name)
    if built_in is None:
        return
    for name, value, fixed in (
        ("order", shown_order(tier.spec.order), shown_order(built_in.spec.order)),
        ("defaultAction", tier.spec.default_action, built_in.spec.default_action),
    ):
        if value != fixed:
            reason = f"of the built-in tier {tier.metadata.name} can't be changed"
            yield Problem(f"spec.{name}", value, reason, f"write {fixed}")


def shown_order(order: float | None) -> str:
    """An order as people write it: 1000000, 99.5; empty where there is none."""
    if order is None:
        return ""
    return str(int(order)) if order.is_integer() else str(order)


def _fixed(tier: Tier) -> Iterator[Validation]:
    """A built-in tier stays what it is."""
    name, order, action = tier.metadata.name, tier.spec.order, tier.spec.default_action
    for field, rule, fixed in (
        ("order", f"has(self.spec.order) && self.spec.order == {order}", shown_order(order)),
        ("defaultAction", f"has(self.spec.defaultAction) && self.spec.defaultAction == '{action}'", action),
    ):
        yield Validation(
            path="",
            field=f".spec.{field}",
            rule=f"self.metadata.name != '{name}' || ({rule})",
            message=f"of the built-in tier {name} can't be changed: write {fixed}",
        )


_DEFINITION = Definition(
    columns=(
        Column(
            name="Order", path=".spec.order", type="number", description="Lower first; the last where there is none."
        ),
        Column(name="DefaultAction", path=".spec.defaultAction", description="What the tier does in the end."),
        Column(
            name="Status", path=".status.conditions[?(@.type=='Ready')].reason", description="Why it is ready or not."
        ),
    ),
    constraints=(Constraint(path="spec.defaultAction", default="Deny"), *CONSTRAINTS),
    validations=tuple(validation for tier in BUILT_IN.values() for validation in _fixed(tier)),
    status=True,
)

KIND = Kind(
    name="Tier", group="projectcalico.org", version="v3", plural="tiers", type=Tier, problems=problems,
    names="label", definition=_DEFINITION,
)  # fmt: skip
