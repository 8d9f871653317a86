"""What Calico's client does with policies and tiers beside writing them: names, defaults, labels, and who needs whom.
Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from calipy.ctl.whole import Whole, typed
from calipy.resources import (
    global_network_policies,
    network_policies,
    staged_global_network_policies,
    staged_network_policies,
    tiers,
)
from calipy.resources.metadata import Key, Kind, Problem
from calipy.resources.policy_rules import TIER_LABEL, plain_name, types_in_force

TIERED: tuple[Kind[Any], ...] = (
    network_policies.KIND,
    global_network_policies.KIND,
    staged_network_policies.KIND,
    staged_global_network_policies.KIND,
)
"""The kinds whose objects lie in a tier."""
STAGED = (staged_network_policies.KIND, staged_global_network_policies.KIND)


def completed(kind: Kind[Any], value: Whole) -> Whole:
    """A policy as it is stored: by its plain name, its tier and directions said, its tier in a label; other objects as
    they are. A staged deletion has no directions. The policy can be decoded."""
    if kind not in TIERED:
        return value
    spec = typed(kind, value).spec
    tier = spec.tier or tiers.DEFAULT
    name, labels = plain_name(value.metadata.name, tier), {**value.metadata.labels, TIER_LABEL: tier}
    metadata = msgspec.structs.replace(value.metadata, name=name, labels=labels)
    completed_spec: dict[str, object] = {**({} if value.spec is UNSET else value.spec), "tier": tier}
    if not (kind in STAGED and spec.staged_action == "Delete"):
        completed_spec["types"] = list(types_in_force(spec))
    return msgspec.structs.replace(value, metadata=metadata, spec=completed_spec)


def spellings(kind: Kind[Any], name: str) -> tuple[str, ...]:
    """The names under which an object may be stored that a user names so: with and without the tier `default`."""
    return tuple(dict.fromkeys((name, plain_name(name, tiers.DEFAULT)))) if kind in TIERED else (name,)


def tier_of(kind: Kind[Any], value: Whole) -> str | None:
    """The tier of a completed policy, None for what isn't one."""
    return typed(kind, value).spec.tier if kind in TIERED else None


def tier_problems(tier: str, known: Container[str]) -> Iterator[Problem]:
    """A policy's tier is a built-in one or one of those known."""
    if tier not in tiers.BUILT_IN and tier not in known:
        yield Problem("spec.tier", tier, "does not exist", "make the Tier first, or choose another")


def deletion_problems(tier: str, policies: Iterable[Key]) -> Iterator[Problem]:
    """Why a tier that still has these policies can't be deleted."""
    if tier in tiers.BUILT_IN:
        yield Problem("metadata.name", tier, "is a built-in tier and can't be deleted", "leave it, it does no harm")
    found = sorted(map(str, policies))
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield Problem("metadata.name", tier, f"is the tier of {found[0]}{more}", "delete or move its policies first")
