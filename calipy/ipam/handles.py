"""Handles: whose addresses they are (Calico's handle IDs), and how many lie in which block. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import ObjectMeta


def object_name(handle: str) -> str:
    """The name of a handle's object."""
    return handle.lower()


def new_handle(handle: str, counts: Mapping[str, int]) -> IPAMHandle:
    """A handle with so many addresses in each block (CIDR)."""
    spec = IPAMHandleSpec(handle_id=handle, block=dict(counts))
    return IPAMHandle(metadata=ObjectMeta(name=object_name(handle)), spec=spec)


def incremented(handle: IPAMHandle, counts: Mapping[str, int]) -> IPAMHandle:
    """The handle with so many more addresses."""
    blocks = dict(handle.spec.block)
    for cidr, count in counts.items():
        blocks[cidr] = blocks.get(cidr, 0) + count
    return structs.replace(handle, spec=structs.replace(handle.spec, block=blocks))


def decremented(handle: IPAMHandle, counts: Mapping[str, int]) -> IPAMHandle | None:
    """The handle with so many fewer; None where nothing is left of it."""
    blocks = {cidr: count - counts.get(cidr, 0) for cidr, count in handle.spec.block.items()}
    left = {cidr: count for cidr, count in blocks.items() if count > 0}
    return structs.replace(handle, spec=structs.replace(handle.spec, block=left)) if left else None
