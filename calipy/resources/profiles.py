"""Profile (projectcalico.org/v3): rules and labels of all endpoints that name it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.resources.metadata import Kind, Resource, no_problems
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


KIND = Kind(
    name="Profile", group="projectcalico.org", version="v3", plural="profiles", type=Profile, problems=no_problems,
    short_names=("pro", "pros"),
)  # fmt: skip
