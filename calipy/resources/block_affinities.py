"""BlockAffinity (projectcalico.org/v3): a node's claim on a block."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from calipy.resources.cidrs import family_of
from calipy.resources.definitions import Column, Constraint, Definition
from calipy.resources.ipam_blocks import name_of as block_name
from calipy.resources.metadata import Kind, Problem, Resource

LABEL_HOSTNAME_HASH = "projectcalico.org/hostname-hash"
LABEL_AFFINITY_TYPE = "projectcalico.org/affinity-type"
LABEL_IP_VERSION = "projectcalico.org/ip-version"


class BlockAffinitySpec(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """Which block, and whose it is (Calico's BlockAffinitySpec)."""

    cidr: str
    """The block."""
    node: str
    """Who claims it: a node's name."""
    state: Literal["pending", "confirmed", "pendingDeletion", ""] = "pending"
    """How far the claim is: only a confirmed one counts as owned, and an empty text, which old versions left, too."""
    type: Literal["host", "virtual", ""] = "host"
    """Who node names: host, a node; virtual, something else, like the load balancer. Empty means host."""
    deleted: bool = False
    """Whether the claim is to be read as if it weren't there. Default: false."""


class BlockAffinity(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="BlockAffinity"
):
    """A node's claim on a block of a pool. Nodes write it, nobody else has to."""

    spec: BlockAffinitySpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.spec.cidr)

    @property
    def confirmed(self) -> bool:
        """True if the node owns the block: routes may lead there."""
        return self.spec.state in ("confirmed", "") and not self.spec.deleted


def name_of(node: str, cidr: str) -> str:
    """The object's name: `<node>-<block name>`, shortened with a hash from 253 characters on."""
    block = block_name(cidr)
    name = f"{node}-{block}"
    if len(name) < 253:
        return name
    digest = hashlib.sha256(f"{node}+{block}".encode()).hexdigest()[:11]
    return f"{node[: 252 - len(block) - 13]}-{block}-{digest}"


def labels_of(node: str, cidr: str, kind: str = "host") -> dict[str, str]:
    """The labels by which Calico lists a node's claims at the server."""
    digest = base64.b32encode(hashlib.sha3_256(node.encode()).digest()).decode().rstrip("=")
    return {
        LABEL_HOSTNAME_HASH: digest,
        LABEL_AFFINITY_TYPE: kind,
        LABEL_IP_VERSION: "6" if ":" in cidr else "4",
    }


def problems(affinity: BlockAffinity) -> Iterator[Problem]:
    """A claim must name a node."""
    if not affinity.spec.node:
        yield Problem("spec.node", "", "is empty", "delete the object")


_DEFINITION = Definition(
    columns=(
        Column(name="CIDR", path=".spec.cidr", description="The block."),
        Column(name="Node", path=".spec.node", description="Who claims it."),
        Column(name="Type", path=".spec.type", description="host or virtual."),
        Column(name="State", path=".spec.state", description="How far the claim is.", wide=True),
    ),
    short_names=("affinity", "affinities"),
    constraints=(
        Constraint(path="spec.cidr", format="cidr"),
        Constraint(path="spec.node", min_length=1),
        Constraint(path="spec.deleted", default=False),
    ),
)

KIND = Kind(
    name="BlockAffinity", group="projectcalico.org", version="v3", plural="blockaffinities", type=BlockAffinity,
    problems=problems, short_names=("affinity", "affinities"), definition=_DEFINITION,
)  # fmt: skip
