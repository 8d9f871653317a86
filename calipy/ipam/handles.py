"""Handles: whose addresses they are (Calico's handle IDs), and how many lie in which block. Pure."""

from __future__ import annotations

from msgspec import structs

from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import ObjectMeta


def object_name(handle: str) -> str:
    """The name of a handle's object."""
    return handle.lower()


def new_handle(handle: str, cidr: str, count: int) -> IPAMHandle:
    """A handle with addresses in one block."""
    return IPAMHandle(
        metadata=ObjectMeta(name=object_name(handle)), spec=IPAMHandleSpec(handle_id=handle, block={cidr: count})
    )


def incremented(handle: IPAMHandle, cidr: str, count: int) -> IPAMHandle:
    """The handle with so many more addresses in a block."""
    blocks = dict(handle.spec.block)
    blocks[cidr] = blocks.get(cidr, 0) + count
    return structs.replace(handle, spec=structs.replace(handle.spec, block=blocks, deleted=False))


def decremented(handle: IPAMHandle, cidr: str, count: int) -> IPAMHandle | None:
    """The handle with so many fewer; None where nothing is left of it."""
    blocks = dict(handle.spec.block)
    left = blocks.get(cidr, 0) - count
    if left > 0:
        blocks[cidr] = left
    else:
        blocks.pop(cidr, None)
    return structs.replace(handle, spec=structs.replace(handle.spec, block=blocks)) if blocks else None
