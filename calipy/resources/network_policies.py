"""NetworkPolicy (projectcalico.org/v3): ordered rules for the workloads of one namespace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.policy_definitions import policy_definition
from calipy.resources.policy_problems import policy_problems
from calipy.resources.policy_rules import PolicySpec, types_in_force

__all__ = ["KIND", "NetworkPolicy", "NetworkPolicySpec", "problems", "types_in_force"]


class NetworkPolicySpec(PolicySpec, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Which of the namespace's pods the policy governs, and what they may talk to (Calico's NetworkPolicySpec)."""


class NetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="NetworkPolicy"
):
    """Rules for the pods of one namespace, with an order, tiers, and rules that deny: more than Kubernetes' own kind of
    this name can say."""

    spec: NetworkPolicySpec = NetworkPolicySpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(policy: NetworkPolicy) -> Iterator[Problem]:
    """Calico's validation of NetworkPolicy."""
    yield from metadata_problems(policy.metadata)
    yield from policy_problems(policy.spec, namespaced=True)


KIND = Kind(
    name="NetworkPolicy", group="projectcalico.org", version="v3", plural="networkpolicies", type=NetworkPolicy,
    problems=problems, names="policy", namespaced=True,
    short_names=("np", "policy", "policies", "pol", "pols", "cnp", "caliconetworkpolicy", "caliconetworkpolicies"),
    definition=policy_definition(namespaced=True, short_names=("cnp", "caliconetworkpolicy")),
)  # fmt: skip
