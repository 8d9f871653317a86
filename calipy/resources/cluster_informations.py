"""ClusterInformation (projectcalico.org/v3), the singleton `default`: which cluster this is, may its data be used."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Resource, no_problems


class ClusterInformationSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico ClusterInformationSpec."""

    cluster_guid: str = field(name="clusterGUID", default="")
    cluster_type: str = ""
    calico_version: str = ""
    datastore_ready: bool | None = None
    """False: a migration runs; agents and CNI refuse work."""
    variant: str = ""


class ClusterInformation(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="ClusterInformation"
):
    """Facts about the cluster."""

    spec: ClusterInformationSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


KIND = Kind(
    name="ClusterInformation", group="projectcalico.org", version="v3", plural="clusterinformations",
    type=ClusterInformation, problems=no_problems, short_names=("clusterinfo", "clusterinfos"),
)  # fmt: skip
