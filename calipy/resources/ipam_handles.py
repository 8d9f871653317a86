"""IPAMHandle (projectcalico.org/v3): in which blocks one holder has addresses, and how many."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Resource, no_problems


class IPAMHandleSpec(Struct, frozen=True, gc=False, kw_only=True):
    """Calico IPAMHandleSpec. A count may be too high after a crash, never too low."""

    handle_id: str = field(name="handleID")
    block: dict[str, int]
    """Block CIDR -> number of addresses."""
    deleted: bool = False


class IPAMHandle(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPAMHandle"):
    """A holder of addresses; its object's name is the lower-cased handle ID."""

    spec: IPAMHandleSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


KIND = Kind(
    name="IPAMHandle", group="projectcalico.org", version="v3", plural="ipamhandles", type=IPAMHandle,
    problems=no_problems, names="any",
)  # fmt: skip
