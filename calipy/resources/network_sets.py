"""NetworkSet (projectcalico.org/v3): addresses outside the pods under labels, for policies of one namespace."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.resources.metadata import Kind, Resource, no_problems


class NetworkSetSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Calico NetworkSetSpec, and GlobalNetworkSetSpec: addresses and CIDRs."""

    nets: tuple[str, ...] = ()


class NetworkSet(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="NetworkSet"):
    """A set of a namespace."""

    spec: NetworkSetSpec = NetworkSetSpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


KIND = Kind(
    name="NetworkSet", group="projectcalico.org", version="v3", plural="networksets", type=NetworkSet,
    problems=no_problems, short_names=("netset", "netsets", "networkset"), namespaced=True,
)  # fmt: skip
