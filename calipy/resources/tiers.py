"""Tier (projectcalico.org/v3): an ordered layer of policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from calipy.resources.conditions import Condition
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, ObjectMeta, Problem, Resource

DEFAULT = "default"
"""The tier of policies that name none, and of Kubernetes' own."""


class TierSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico TierSpec."""

    order: float | None = None
    """Lower first; None is last."""
    default_action: Literal["Deny", "Pass"] = "Deny"
    """What becomes of packets that policies of the tier select, and no rule of theirs decides."""


class TierStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico TierStatus: `Ready`."""

    conditions: tuple[Condition, ...] = ()


class Tier(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Tier"):
    """A tier."""

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


KIND = Kind(
    name="Tier", group="projectcalico.org", version="v3", plural="tiers", type=Tier, problems=problems,
    names="label",
)  # fmt: skip
