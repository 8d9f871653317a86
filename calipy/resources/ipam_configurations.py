"""IPAMConfiguration (projectcalico.org/v3), the singleton `default`: how blocks are claimed and shared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from calipy.resources.definitions import Column, Constraint, Definition, Validation, only_default
from calipy.resources.metadata import Kind, ObjectMeta, Problem, Resource

DEFAULT_MAX_BLOCKS_PER_HOST = 20


class IPAMConfigurationSpec(Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=False):
    """How nodes claim and share blocks (Calico's IPAMConfigurationSpec)."""

    strict_affinity: bool = False
    """Whether a node draws addresses from its own blocks alone. Otherwise it borrows from other nodes' blocks where no
    new block can be had. Default: false."""
    auto_allocate_blocks: bool = True
    """Whether nodes claim new blocks when theirs are full. False needs strictAffinity. Default: true."""
    max_blocks_per_host: int = 0
    """How many blocks a node may have, of each IP version; 0 stands for 20, 1000000 is the most. Default: 0."""
    ip_cooldown_seconds: int = 0
    """How long an address that was given back stays unused, in seconds; 1200 at most. Default: 0, it goes to the end of
    its block's queue."""
    kube_virt_vm_address_persistence: Literal["Enabled", "Disabled"] | UnsetType = field(
        name="kubeVirtVMAddressPersistence", default=UNSET
    )
    """Whether a virtual machine of KubeVirt keeps its address over restarts. Known, without effect."""


class IPAMConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPAMConfiguration"
):
    """How addresses are given out in the whole cluster; the only object is called default."""

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


_DEFINITION = Definition(
    columns=(
        Column(name="StrictAffinity", path=".spec.strictAffinity", type="boolean", description="No borrowing."),
        Column(name="MaxBlocksPerHost", path=".spec.maxBlocksPerHost", type="integer", description="0 stands for 20."),
        Column(name="AutoAllocateBlocks", path=".spec.autoAllocateBlocks", type="boolean", description="New blocks."),
    ),
    short_names=("ipamconfig", "ipamconfigs"),
    constraints=(
        Constraint(path="spec.strictAffinity", default=False),
        Constraint(path="spec.autoAllocateBlocks", default=True),
        Constraint(path="spec.maxBlocksPerHost", format="int32", default=0, minimum=0, maximum=1_000_000),
        Constraint(path="spec.ipCooldownSeconds", format="int32", minimum=0, maximum=1200),
    ),
    validations=(
        only_default("IPAMConfiguration"),
        Validation(
            path="spec",
            field=".autoAllocateBlocks",
            rule="self.strictAffinity || self.autoAllocateBlocks",
            message="without new blocks every address would be borrowed: set strictAffinity to true as well",
        ),
    ),
)

KIND = Kind(
    name="IPAMConfiguration", group="projectcalico.org", version="v3", plural="ipamconfigurations",
    type=IPAMConfiguration, problems=problems, short_names=("ipamconfig", "ipamconfigs"),
    definition=_DEFINITION,
)  # fmt: skip
