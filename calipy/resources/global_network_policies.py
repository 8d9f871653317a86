"""GlobalNetworkPolicy (projectcalico.org/v3): ordered rules for endpoints of all namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import field

from calipy.resources.definitions import SELECTOR, Validation, bounded
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.policy_definitions import no_global, policy_definition
from calipy.resources.policy_problems import plain_selector_problems, policy_problems
from calipy.resources.policy_rules import PolicySpec


class GlobalNetworkPolicySpec(PolicySpec, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Which endpoints the policy governs, and what they may talk to (Calico's GlobalNetworkPolicySpec)."""

    namespace_selector: str = ""
    """Of the endpoints that selector means only those in namespaces with these labels. Empty asks for nothing."""
    do_not_track: bool = False
    """For host endpoints: the rules hold before connection tracking, and what they allow isn't tracked. It needs
    applyOnForward, and not preDNAT."""
    pre_dnat: bool = field(name="preDNAT", default=False)
    """For host endpoints: the rules hold before addresses are translated. It needs applyOnForward, and has no egress
    rules."""
    apply_on_forward: bool = False
    """For host endpoints: the rules hold for traffic that the host forwards, too."""


class GlobalNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="GlobalNetworkPolicy"
):
    """Rules for endpoints of all namespaces, with an order and tiers."""

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


_SET = "(has(self.{0}) && self.{0})"
_DO_NOT_TRACK, _PRE_DNAT, _FORWARD = map(_SET.format, ("doNotTrack", "preDNAT", "applyOnForward"))
_HOST_RULES = (
    ("preDNAT", f"!({_DO_NOT_TRACK} && {_PRE_DNAT})", "preDNAT and doNotTrack can't both be set"),
    ("egress", f"!{_PRE_DNAT} || !has(self.egress) || size(self.egress) == 0", "a policy with preDNAT has none"),
    ("types", f"!{_PRE_DNAT} || !has(self.types) || !('Egress' in self.types)", "a policy with preDNAT has no Egress"),
    ("applyOnForward", f"{_FORWARD} || !({_DO_NOT_TRACK} || {_PRE_DNAT})", "doNotTrack and preDNAT need it: set it"),
)
"""Field, rule, message."""

KIND = Kind(
    name="GlobalNetworkPolicy", group="projectcalico.org", version="v3", plural="globalnetworkpolicies",
    type=GlobalNetworkPolicy, problems=problems, names="policy", short_names=("gnp", "gnps", "cgnp"),
    definition=policy_definition(
        namespaced=False,
        short_names=("gnp", "cgnp"),
        constraints=bounded(SELECTOR, "spec.namespaceSelector"),
        validations=(
            no_global("spec", "namespaceSelector"),
            *(Validation(path="spec", field=f".{name}", rule=rule, message=text) for name, rule, text in _HOST_RULES),
        ),
    ),
)  # fmt: skip
