"""GlobalNetworkSet (projectcalico.org/v3): addresses outside the pods under labels, for policies of the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.network_sets import NetworkSetSpec, set_definition, set_problems


class GlobalNetworkSet(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="GlobalNetworkSet"
):
    """Addresses outside the cluster under labels, for the selectors of rules; in reach of all policies."""

    spec: NetworkSetSpec = NetworkSetSpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(found: GlobalNetworkSet) -> Iterator[Problem]:
    """Calico's validation of GlobalNetworkSet."""
    return set_problems(found.metadata, found.spec)


KIND = Kind(
    name="GlobalNetworkSet", group="projectcalico.org", version="v3", plural="globalnetworksets",
    type=GlobalNetworkSet, problems=problems, short_names=("gns", "gnetset", "gnetsets"),
    definition=set_definition("gns"),
)  # fmt: skip
