"""IPAMConfiguration (projectcalico.org/v3), the singleton `default`: how blocks are claimed and shared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from calipy.resources.metadata import Kind, ObjectMeta, Problem, Resource

DEFAULT_MAX_BLOCKS_PER_HOST = 20


class IPAMConfigurationSpec(Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=False):
    """Calico IPAMConfigurationSpec. `max_blocks_per_host` 0 stands for 20, per family."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0
    ip_cooldown_seconds: int = 0
    kube_virt_vm_address_persistence: Literal["Enabled", "Disabled"] | UnsetType = field(
        name="kubeVirtVMAddressPersistence", default=UNSET
    )


class IPAMConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPAMConfiguration"
):
    """How the allocator behaves."""

    spec: IPAMConfigurationSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


DEFAULT = IPAMConfiguration(metadata=ObjectMeta(name="default"), spec=IPAMConfigurationSpec())
"""In force where no object exists; never written as a side effect."""


def problems(configuration: IPAMConfiguration) -> Iterator[Problem]:
    """Ranges are the v3 CRD's; what leaves no way to get an address is refused. A limit without strictAffinity, which
    Calico's `ipam configure` refuses, stands in the example of its documentation, and is let in as there."""
    spec = configuration.spec
    if configuration.metadata.name != "default":
        yield Problem("metadata.name", configuration.metadata.name, "only one object is read", "name it default")
    if not spec.strict_affinity and not spec.auto_allocate_blocks:
        reason = "without new blocks every address would be borrowed"
        yield Problem("spec.autoAllocateBlocks", False, reason, "set strictAffinity to true as well")
    if not 0 <= spec.max_blocks_per_host <= 1_000_000:
        yield Problem("spec.maxBlocksPerHost", spec.max_blocks_per_host, "is out of range", "0 to 1000000")
    if not 0 <= spec.ip_cooldown_seconds <= 1200:
        yield Problem("spec.ipCooldownSeconds", spec.ip_cooldown_seconds, "is out of range", "0 to 1200")


KIND = Kind(
    name="IPAMConfiguration", group="projectcalico.org", version="v3", plural="ipamconfigurations",
    type=IPAMConfiguration, problems=problems, short_names=("ipamconfig", "ipamconfigs"),
)  # fmt: skip
