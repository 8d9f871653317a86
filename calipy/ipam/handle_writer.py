"""The only writer of IPAMHandles: counts go up before the block is written, and down after."""

from __future__ import annotations

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.ipam import handles
from calipy.ipam.block_writer import ATTEMPTS
from calipy.resources import ipam_handles
from calipy.resources.ipam_handles import IPAMHandle


class HandleWriter:
    """Counts a handle's addresses by block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, handle: str) -> Stored[IPAMHandle] | None:
        """The handle; None where it has no addresses."""
        try:
            stored = await self._store.get(ipam_handles.KIND, handles.object_name(handle))
        except NotFound:
            return None
        return None if stored.value.spec.deleted else stored

    async def add(self, handle: str, cidr: str, count: int) -> None:
        """Counts addresses that are about to be given out. Raises Conflict where others keep changing the handle."""
        for _ in range(ATTEMPTS):
            try:
                await self._store.create(ipam_handles.KIND, handles.new_handle(handle, cidr, count))
            except Exists:
                stored = await self.read(handle)
                if stored is None:
                    continue
                try:
                    await self._store.update(ipam_handles.KIND, stored, handles.incremented(stored.value, cidr, count))
                except (Conflict, NotFound):
                    continue
            return
        raise _beaten(handle)

    async def subtract(self, handle: str, cidr: str, count: int) -> None:
        """Counts addresses that are free again; a handle without addresses is deleted."""
        for _ in range(ATTEMPTS):
            stored = await self.read(handle)
            if stored is None:
                return
            left = handles.decremented(stored.value, cidr, count)
            try:
                if left is None:
                    await self._store.delete(ipam_handles.KIND, stored)
                elif left != stored.value:
                    await self._store.update(ipam_handles.KIND, stored, left)
            except Conflict:
                continue
            except NotFound:
                pass
            return
        raise _beaten(handle)


def _beaten(handle: str) -> Conflict:
    return Conflict(f"handle {handle} was changed by others {ATTEMPTS} times in a row; try again")
