"""NetworkSet (projectcalico.org/v3): addresses outside the pods under labels, for policies of one namespace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from calipy.resources.cidrs import network_or_address
from calipy.resources.definitions import Constraint, Definition, Validation
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, ObjectMeta, Problem, Resource

MOST_NETS = 100_000
NAMESPACE_LABEL = "projectcalico.org/namespace"
"""Put on by Calico where selectors are judged, and by nobody else."""


class NetworkSetSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The addresses (Calico's NetworkSetSpec, and GlobalNetworkSetSpec)."""

    nets: tuple[str, ...] = ()
    """Addresses and CIDRs of both IP versions, 100000 at most."""


class NetworkSet(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="NetworkSet"):
    """Addresses outside the cluster under labels, for the selectors of rules; in reach of one namespace's policies."""

    spec: NetworkSetSpec = NetworkSetSpec()
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def set_problems(metadata: ObjectMeta, spec: NetworkSetSpec) -> Iterator[Problem]:
    """Calico's validation of NetworkSet, and of GlobalNetworkSet. Bits behind a prefix are let pass."""
    yield from metadata_problems(metadata)
    if NAMESPACE_LABEL in metadata.labels:
        value = metadata.labels[NAMESPACE_LABEL]
        yield Problem(f"metadata.labels[{NAMESPACE_LABEL}]", value, "is Calico's own label", "choose another name")
    if len(spec.nets) > MOST_NETS:
        yield Problem("spec.nets", f"{len(spec.nets)} entries", "are too many", f"{MOST_NETS} at most")
    seen: set[str] = set()
    for index, net in enumerate(spec.nets):
        field = f"spec.nets[{index}]"
        if net in seen:
            yield Problem(field, net, "is there twice", "write each once")
        seen.add(net)
        try:
            network_or_address(net)
        except ValueError:
            yield Problem(field, net, "is neither an address nor a CIDR", "write 192.0.2.1 or 192.0.2.0/24")


def problems(found: NetworkSet) -> Iterator[Problem]:
    """Calico's validation of NetworkSet."""
    return set_problems(found.metadata, found.spec)


def set_definition(*short_names: str) -> Definition:
    """Of a kind with a NetworkSetSpec."""
    return Definition(
        short_names=short_names,
        constraints=(
            Constraint(path="spec.nets", list_type="set", max_items=MOST_NETS),
            Constraint(path="spec.nets[]", max_length=43),
        ),
        validations=(
            Validation(
                path="spec.nets[]",
                rule="isCIDR(self) || isIP(self)",
                message="is neither an address nor a CIDR: write 192.0.2.1 or 192.0.2.0/24",
            ),
        ),
    )


KIND = Kind(
    name="NetworkSet", group="projectcalico.org", version="v3", plural="networksets", type=NetworkSet,
    problems=problems, short_names=("netset", "netsets"), namespaced=True, definition=set_definition(),
)  # fmt: skip
