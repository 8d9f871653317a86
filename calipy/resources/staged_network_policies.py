"""StagedNetworkPolicy (projectcalico.org/v3): a NetworkPolicy that is tried out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.network_policies import NetworkPolicySpec
from calipy.resources.policy_definitions import policy_definition
from calipy.resources.policy_problems import policy_problems
from calipy.resources.staged_policies import (
    COLUMNS,
    FILLED_IN,
    StagedAction,
    blank_problems,
    staged_validations,
)


class StagedNetworkPolicySpec(
    NetworkPolicySpec, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"
):
    """Calico StagedNetworkPolicySpec: a policy, and what is to become of it."""

    staged_action: StagedAction = "Set"
    """What becomes of the NetworkPolicy of this name when the stage is put into force: it is made or replaced (Set), or
    deleted (Delete; nothing but the tier may be said then). Learn: it is a proposal that tools still work at. Ignore:
    it is to be passed over."""


class StagedNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="StagedNetworkPolicy"
):
    """A policy of a namespace, staged."""

    spec: StagedNetworkPolicySpec = StagedNetworkPolicySpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(policy: StagedNetworkPolicy) -> Iterator[Problem]:
    """Calico's validation of StagedNetworkPolicy."""
    yield from metadata_problems(policy.metadata)
    if policy.spec.staged_action == "Delete":
        yield from blank_problems(policy.spec)
    yield from policy_problems(policy.spec, namespaced=True)


KIND = Kind(
    name="StagedNetworkPolicy", group="projectcalico.org", version="v3", plural="stagednetworkpolicies",
    type=StagedNetworkPolicy, problems=problems, names="policy", namespaced=True,
    short_names=("snp", "scnp", "stagedpolicy", "stagedpolicies", "spol", "spols"),
    definition=policy_definition(
        namespaced=True, short_names=("scnp", "snp"), columns=COLUMNS, constraints=(FILLED_IN,),
        validations=staged_validations(),
    ),
)  # fmt: skip
