"""NetworkPolicy (projectcalico.org/v3): ordered rules for the workloads of one namespace."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.resources.metadata import Kind, Resource, no_problems
from calipy.resources.policy_rules import PerformanceHint, PolicyType, Rule


class NetworkPolicySpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico NetworkPolicySpec."""

    tier: str = ""
    """Empty stands for `default`."""
    order: float | None = None
    """Lower first; None is last."""
    selector: str = ""
    service_account_selector: str = ""
    types: tuple[PolicyType, ...] = ()
    """Empty stands for what `types_in_force` says."""
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    performance_hints: tuple[PerformanceHint, ...] = ()


class NetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="NetworkPolicy"
):
    """A policy of a namespace."""

    spec: NetworkPolicySpec = NetworkPolicySpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


KIND = Kind(
    name="NetworkPolicy", group="projectcalico.org", version="v3", plural="networkpolicies", type=NetworkPolicy,
    problems=no_problems, short_names=("np", "cnp", "caliconetworkpolicy", "caliconetworkpolicies"), namespaced=True,
)  # fmt: skip
