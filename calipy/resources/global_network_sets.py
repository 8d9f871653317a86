"""GlobalNetworkSet (projectcalico.org/v3): addresses outside the pods under labels, for policies of the cluster."""

from __future__ import annotations

from typing import Literal

from calipy.resources.metadata import Kind, Resource, no_problems
from calipy.resources.network_sets import NetworkSetSpec


class GlobalNetworkSet(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="GlobalNetworkSet"
):
    """A set of the whole cluster."""

    spec: NetworkSetSpec = NetworkSetSpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


KIND = Kind(
    name="GlobalNetworkSet", group="projectcalico.org", version="v3", plural="globalnetworksets",
    type=GlobalNetworkSet, problems=no_problems, short_names=("gns",),
)  # fmt: skip
