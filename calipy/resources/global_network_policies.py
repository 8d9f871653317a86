"""GlobalNetworkPolicy (projectcalico.org/v3): ordered rules for endpoints of all namespaces."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Resource, no_problems
from calipy.resources.policy_rules import PerformanceHint, PolicyType, Rule


class GlobalNetworkPolicySpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico GlobalNetworkPolicySpec."""

    tier: str = ""
    """Empty stands for `default`."""
    order: float | None = None
    """Lower first; None is last."""
    selector: str = ""
    namespace_selector: str = ""
    service_account_selector: str = ""
    types: tuple[PolicyType, ...] = ()
    """Empty stands for what `types_in_force` says."""
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    do_not_track: bool = False
    pre_dnat: bool = field(name="preDNAT", default=False)
    apply_on_forward: bool = False
    performance_hints: tuple[PerformanceHint, ...] = ()


class GlobalNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="GlobalNetworkPolicy"
):
    """A policy of the whole cluster."""

    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


KIND = Kind(
    name="GlobalNetworkPolicy", group="projectcalico.org", version="v3", plural="globalnetworkpolicies",
    type=GlobalNetworkPolicy, problems=no_problems, short_names=("gnp", "cgnp"),
)  # fmt: skip
