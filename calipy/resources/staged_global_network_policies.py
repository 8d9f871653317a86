"""StagedGlobalNetworkPolicy (projectcalico.org/v3): a GlobalNetworkPolicy that is tried out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from calipy.resources.definitions import SELECTOR, Validation, bounded
from calipy.resources.global_network_policies import GlobalNetworkPolicySpec
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.policy_definitions import no_global, policy_definition
from calipy.resources.policy_problems import plain_selector_problems, policy_problems
from calipy.resources.staged_policies import (
    COLUMNS,
    FILLED_IN,
    StagedAction,
    blank_problems,
    blank_validations,
    staged_validations,
)


class StagedGlobalNetworkPolicySpec(
    GlobalNetworkPolicySpec, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"
):
    """Calico StagedGlobalNetworkPolicySpec: a policy, and what is to become of it."""

    staged_action: StagedAction = "Set"
    """What becomes of the GlobalNetworkPolicy of this name when the stage is put into force: it is made or replaced
    (Set), or deleted (Delete; nothing but the tier may be said then). Learn: it is a proposal that tools still work at.
    Ignore: it is to be passed over."""


class StagedGlobalNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="StagedGlobalNetworkPolicy"
):
    """A policy of the whole cluster, staged."""

    spec: StagedGlobalNetworkPolicySpec = StagedGlobalNetworkPolicySpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(policy: StagedGlobalNetworkPolicy) -> Iterator[Problem]:
    """Calico's validation of StagedGlobalNetworkPolicy. What is for host endpoints may be staged: it has no effect."""
    spec = policy.spec
    yield from metadata_problems(policy.metadata)
    if spec.staged_action == "Delete":
        yield from blank_problems(spec)
    yield from policy_problems(spec, namespaced=False)
    yield from plain_selector_problems("spec.namespaceSelector", spec.namespace_selector)
    yield from _host_problems(spec)


def _host_problems(spec: StagedGlobalNetworkPolicySpec) -> Iterator[Problem]:
    if spec.do_not_track and spec.pre_dnat:
        yield Problem("spec.preDNAT", True, "can't be combined with doNotTrack", "keep one of them")
    if (spec.do_not_track or spec.pre_dnat) and not spec.apply_on_forward:
        reason = f"is needed with {'doNotTrack' if spec.do_not_track else 'preDNAT'}"
        yield Problem("spec.applyOnForward", False, reason, "set it to true")
    if spec.pre_dnat and spec.egress:
        reason = "come after DNAT, and preDNAT is set"
        yield Problem("spec.egress", f"{len(spec.egress)} entries", reason, "keep the policy to ingress")
    if spec.pre_dnat and "Egress" in spec.types:
        yield Problem("spec.types", list(spec.types), "Egress comes after DNAT, and preDNAT is set", "write [Ingress]")


_TRACKED = "(!has(self.doNotTrack) || !self.doNotTrack)"
_AFTER_DNAT = "(!has(self.preDNAT) || !self.preDNAT)"
_VALIDATIONS = (
    Validation(
        path="spec", rule=f"{_TRACKED} || {_AFTER_DNAT}", field=".preDNAT", reason="FieldValueForbidden",
        message="can't be combined with doNotTrack: keep one of them",
    ),
    Validation(
        path="spec", rule=f"({_TRACKED} && {_AFTER_DNAT}) || (has(self.applyOnForward) && self.applyOnForward)",
        field=".applyOnForward", message="is needed with doNotTrack and preDNAT: set it to true",
    ),
    Validation(
        path="spec", rule=f"{_AFTER_DNAT} || !has(self.egress) || size(self.egress) == 0", field=".egress",
        reason="FieldValueForbidden", message="egress comes after DNAT: with preDNAT keep the policy to ingress",
    ),
    Validation(
        path="spec", rule=f"{_AFTER_DNAT} || !has(self.types) || !('Egress' in self.types)", field=".types",
        reason="FieldValueForbidden", message="egress comes after DNAT: with preDNAT write [Ingress]",
    ),
    *blank_validations("doNotTrack", "preDNAT", "applyOnForward"),
)  # fmt: skip

KIND = Kind(
    name="StagedGlobalNetworkPolicy", group="projectcalico.org", version="v3", plural="stagedglobalnetworkpolicies",
    type=StagedGlobalNetworkPolicy, problems=problems, names="policy", short_names=("sgnp", "sgnps"),
    definition=policy_definition(
        namespaced=False, short_names=("sgnp",), columns=COLUMNS,
        constraints=(FILLED_IN, *bounded(SELECTOR, "spec.namespaceSelector")),
        validations=(no_global("spec", "namespaceSelector"), *staged_validations("namespaceSelector"), *_VALIDATIONS),
    ),
)  # fmt: skip
