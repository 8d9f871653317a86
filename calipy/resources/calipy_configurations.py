"""CalipyConfiguration (calipy.io/v1alpha1): settings that Calico doesn't have. `default` for the cluster, `node.<name>`
for one node; environment variables `CALIPY_<NAME>` of a node's agent stand above both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from calipy.resources.definitions import Definition, default_or_node
from calipy.resources.metadata import Kind, Problem, Resource

PolicyRecheck = Literal["Disabled", "Enabled"]
"""Whether established connections that a change of policy forbids are cut; Calico never does."""
POLICY_RECHECK: PolicyRecheck = "Disabled"
"""Where nobody says otherwise."""


class CalipyConfigurationSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """What is left out for one node is as the object default says."""

    policy_recheck: PolicyRecheck | None = None
    """Enabled: connections that run already are cut when a change of policy forbids them. Disabled: they go on until
    they end, as in Calico. Default: Disabled."""


class CalipyConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="CalipyConfiguration"
):
    """CalIPy's own settings: default for the cluster, node.<name> for one node."""

    spec: CalipyConfigurationSpec = CalipyConfigurationSpec()
    api_version: Literal["calipy.io/v1alpha1"] = "calipy.io/v1alpha1"


def policy_recheck(
    node: str, configurations: Iterable[CalipyConfiguration], environment: PolicyRecheck | None = None
) -> PolicyRecheck:
    """What holds on a node: its environment's, else its own object's, else that of `default`."""
    said = {configuration.metadata.name: configuration.spec.policy_recheck for configuration in configurations}
    return environment or said.get(f"node.{node}") or said.get("default") or POLICY_RECHECK


def problems(configuration: CalipyConfiguration) -> Iterator[Problem]:
    """A name that no node reads."""
    name = configuration.metadata.name
    if name != "default" and not name.startswith("node."):
        yield Problem("metadata.name", name, "no node reads it", "name it default or node.<node name>")


KIND = Kind(
    name="CalipyConfiguration", group="calipy.io", version="v1alpha1", plural="calipyconfigurations",
    type=CalipyConfiguration, problems=problems, short_names=("calipyconfig", "calipyconfigs"),
    definition=Definition(short_names=("calipyconfig",), validations=(default_or_node("CalipyConfiguration"),)),
)  # fmt: skip
