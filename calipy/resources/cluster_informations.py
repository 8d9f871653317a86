"""ClusterInformation (projectcalico.org/v3), the singleton `default`: which cluster this is, may its data be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.definitions import Definition, only_default
from calipy.resources.metadata import Kind, Problem, Resource


class ClusterInformationSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Which cluster this is, and whether its data may be used (Calico's ClusterInformationSpec)."""

    cluster_guid: str = field(name="clusterGUID", default="")
    """A random name of the cluster, made once."""
    cluster_type: str = ""
    """What the cluster is, as words with commas between them: k8s,bgp,kubeadm."""
    calico_version: str = ""
    """Which version of the agents wrote this object."""
    datastore_ready: bool | None = None
    """False while the datastore is being moved: agents and CNI refuse work. Default: true."""
    variant: str = ""
    """Which product wrote this object."""


class ClusterInformation(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="ClusterInformation"
):
    """Facts about the cluster; the only object is called default. Agents write it, nobody else has to."""

    spec: ClusterInformationSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(information: ClusterInformation) -> Iterator[Problem]:
    """A name that nobody reads."""
    if information.metadata.name != "default":
        yield Problem("metadata.name", information.metadata.name, "only one object is read", "name it default")


KIND = Kind(
    name="ClusterInformation", group="projectcalico.org", version="v3", plural="clusterinformations",
    type=ClusterInformation, problems=problems, short_names=("clusterinfo", "clusterinfos"),
    definition=Definition(short_names=("clusterinfo",), validations=(only_default("ClusterInformation"),)),
)  # fmt: skip
