"""StagedKubernetesNetworkPolicy (projectcalico.org/v3): a NetworkPolicy of Kubernetes that is tried out.

An API server has no room to compare both ends of each range of ports: lists may be long. `problems` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from calipy.resources import kubernetes_network_policies
from calipy.resources.definitions import Column, Constraint, Definition, Validation
from calipy.resources.kubernetes_network_policies import KubernetesNetworkPolicy, KubernetesNetworkPolicySpec
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.staged_policies import FILLED_IN, StagedAction, blank_problems, blank_validations


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


_SELECTORS = (
    "spec.podSelector",
    *(
        f"spec.{rule}.{name}"
        for rule in ("ingress[].from[]", "egress[].to[]")
        for name in ("podSelector", "namespaceSelector")
    ),
)
_PEERS = ("spec.ingress[].from[]", "spec.egress[].to[]")
_PORTS = ("spec.ingress[].ports[]", "spec.egress[].ports[]")


def _constraints() -> Iterator[Constraint]:
    yield FILLED_IN
    yield Constraint(path="spec.policyTypes", min_items=1, max_items=2, list_type="set")
    for path in ("spec.ingress", "spec.egress", *(path.removesuffix("[]") for path in (*_PEERS, *_PORTS))):
        yield Constraint(path=path, list_type="atomic")
    for path in _PEERS:
        yield Constraint(path=f"{path}.ipBlock.except", list_type="atomic")
        yield Constraint(path=f"{path}.ipBlock.cidr", max_length=43)
    for path in _PORTS:
        yield Constraint(path=f"{path}.endPort", minimum=1, maximum=65535)
        yield Constraint(path=f"{path}.port", minimum=1, maximum=65535, max_length=15)
    for path in _SELECTORS:
        yield Constraint(path=path, map_type="atomic")
        yield Constraint(path=f"{path}.matchExpressions", list_type="atomic")
        yield Constraint(path=f"{path}.matchExpressions[].values", list_type="atomic")


def _validations() -> Iterator[Validation]:
    yield from blank_validations("podSelector", "ingress", "egress", "policyTypes")
    for path in _PEERS:
        yield Validation(
            path=path, rule="has(self.ipBlock) || has(self.podSelector) || has(self.namespaceSelector)",
            message="names nobody: write ipBlock, podSelector or namespaceSelector; {} selects all",
        )  # fmt: skip
        yield Validation(
            path=path, rule="!has(self.ipBlock) || !(has(self.podSelector) || has(self.namespaceSelector))",
            field=".ipBlock", reason="FieldValueForbidden", message="can't be combined with selectors: write two peers",
        )  # fmt: skip
        yield Validation(
            path=f"{path}.ipBlock", rule="isCIDR(self.cidr)", field=".cidr",
            message="is not a CIDR: write an address and a prefix length, 10.0.0.0/8 or 2001:db8::/32",
        )  # fmt: skip
    for path in _PORTS:
        yield Validation(
            path=path,
            rule="!has(self.endPort) || (has(self.port) && type(self.port) == int)",
            field=".endPort", message="needs a port that is a number: set port to the first of the range",
        )  # fmt: skip


KIND = Kind(
    name="StagedKubernetesNetworkPolicy", group="projectcalico.org", version="v3",
    plural="stagedkubernetesnetworkpolicies", type=StagedKubernetesNetworkPolicy, problems=problems, namespaced=True,
    short_names=("sknp", "stagedkubernetespolicy", "stagedkubernetespolicies", "skpol", "skpols"),
    definition=Definition(
        short_names=("sknp",),
        columns=(Column("Action", ".spec.stagedAction", description="What becomes of the policy of this name"),),
        constraints=tuple(_constraints()), validations=tuple(_validations()),
    ),
)  # fmt: skip
