"""Profile (projectcalico.org/v3): rules and labels of all endpoints that name it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from calipy.resources.labels import label_problems, metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.policy_problems import rules_problems
from calipy.resources.policy_rules import Rule


class ProfileSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico ProfileSpec."""

    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    labels_to_apply: dict[str, str] = {}
    """An endpoint's own labels come before them."""


class Profile(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Profile"):
    """A profile."""

    spec: ProfileSpec = ProfileSpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(profile: Profile) -> Iterator[Problem]:
    """Calico's validation of Profile."""
    yield from metadata_problems(profile.metadata)
    yield from rules_problems("spec.ingress", profile.spec.ingress, "ingress", namespaced=False)
    yield from rules_problems("spec.egress", profile.spec.egress, "egress", namespaced=False)
    yield from label_problems("spec.labelsToApply", profile.spec.labels_to_apply)


KIND = Kind(
    name="Profile", group="projectcalico.org", version="v3", plural="profiles", type=Profile, problems=problems,
    short_names=("pro", "pros"),
)  # fmt: skip
