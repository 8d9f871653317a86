"""StagedKubernetesNetworkPolicy (projectcalico.org/v3): a NetworkPolicy of Kubernetes that is tried out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from calipy.resources import kubernetes_network_policies
from calipy.resources.definitions import Column, Constraint, Definition
from calipy.resources.kubernetes_network_policies import KubernetesNetworkPolicy, KubernetesNetworkPolicySpec
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.staged_policies import StagedAction, blank_problems, blank_validations


class StagedKubernetesNetworkPolicySpec(
    KubernetesNetworkPolicySpec, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"
):
    """Calico StagedKubernetesNetworkPolicySpec: a policy, and what is to become of it."""

    staged_action: StagedAction = "Set"
    """What becomes of Kubernetes' NetworkPolicy of this name when the stage is put into force: it is made or replaced
    (Set), or deleted (Delete; nothing else may be said then). Learn: it is a proposal that tools still work at. Ignore:
    it is to be passed over."""


class StagedKubernetesNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="StagedKubernetesNetworkPolicy"
):
    """A policy of Kubernetes, staged."""

    spec: StagedKubernetesNetworkPolicySpec = StagedKubernetesNetworkPolicySpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(policy: StagedKubernetesNetworkPolicy) -> Iterator[Problem]:
    """Calico's validation of StagedKubernetesNetworkPolicy: Kubernetes' own, of the policy that it would be."""
    if policy.spec.staged_action == "Delete":
        yield from blank_problems(policy.spec)
    yield from kubernetes_network_policies.problems(KubernetesNetworkPolicy(metadata=policy.metadata, spec=policy.spec))


KIND = Kind(
    name="StagedKubernetesNetworkPolicy", group="projectcalico.org", version="v3",
    plural="stagedkubernetesnetworkpolicies", type=StagedKubernetesNetworkPolicy, problems=problems, namespaced=True,
    short_names=("sknp", "stagedkubernetespolicy", "stagedkubernetespolicies", "skpol", "skpols"),
    definition=Definition(
        short_names=("sknp",),
        columns=(Column("Action", ".spec.stagedAction", description="What becomes of the policy of this name"),),
        constraints=(
            Constraint(path="spec.ingress", list_type="atomic"),
            Constraint(path="spec.egress", list_type="atomic"),
            Constraint(path="spec.policyTypes", min_items=1, max_items=2, list_type="set"),
        ),
        validations=tuple(blank_validations("podSelector", "ingress", "egress", "policyTypes")),
    ),
)  # fmt: skip
