"""GlobalNetworkPolicy (projectcalico.org/v3): ordered rules for endpoints of all namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import field

from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.policy_problems import plain_selector_problems, policy_problems
from calipy.resources.policy_rules import PolicySpec


class GlobalNetworkPolicySpec(PolicySpec, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico GlobalNetworkPolicySpec."""

    namespace_selector: str = ""
    do_not_track: bool = False
    """For host endpoints, as are the next two."""
    pre_dnat: bool = field(name="preDNAT", default=False)
    apply_on_forward: bool = False


class GlobalNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="GlobalNetworkPolicy"
):
    """A policy of the whole cluster."""

    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(policy: GlobalNetworkPolicy) -> Iterator[Problem]:
    """Calico's validation of GlobalNetworkPolicy; what is for host endpoints is refused."""
    spec = policy.spec
    yield from metadata_problems(policy.metadata)
    yield from policy_problems(spec, namespaced=False)
    yield from plain_selector_problems("spec.namespaceSelector", spec.namespace_selector)
    for name, value in (
        ("doNotTrack", spec.do_not_track),
        ("preDNAT", spec.pre_dnat),
        ("applyOnForward", spec.apply_on_forward),
    ):
        if value:
            reason = "is for host endpoints, which CalIPy doesn't have yet"
            yield Problem(f"spec.{name}", True, reason, "leave it out, and keep the policy to workloads")


KIND = Kind(
    name="GlobalNetworkPolicy", group="projectcalico.org", version="v3", plural="globalnetworkpolicies",
    type=GlobalNetworkPolicy, problems=problems, names="policy", short_names=("gnp", "gnps", "cgnp"),
)  # fmt: skip
