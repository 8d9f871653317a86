"""IPAMHandle (projectcalico.org/v3): in which blocks one holder has addresses, and how many."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.definitions import Column, Definition
from calipy.resources.metadata import Kind, Resource, no_problems


class IPAMHandleSpec(Struct, frozen=True, gc=False, kw_only=True):
    """Whose handle it is, and where its addresses are (Calico's IPAMHandleSpec)."""

    handle_id: str = field(name="handleID")
    """The holder, as it spells itself; the object's name is the same in small letters."""
    block: dict[str, int]
    """Block -> number of the holder's addresses in it. After a crash it may be too high, never too low."""
    deleted: bool = False
    """Whether the handle is to be read as if it weren't there."""


class IPAMHandle(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPAMHandle"):
    """A holder of addresses: the sandbox of a pod, a tunnel. Nodes write it, nobody else has to."""

    spec: IPAMHandleSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


KIND = Kind(
    name="IPAMHandle", group="projectcalico.org", version="v3", plural="ipamhandles", type=IPAMHandle,
    problems=no_problems, names="any",
    definition=Definition(columns=(Column(name="ID", path=".spec.handleID", description="The holder."),)),
)  # fmt: skip
