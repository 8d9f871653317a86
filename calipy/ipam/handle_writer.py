"""The only writer of IPAMHandles: counts go up before the block is written, and down after.

So a count may be too high after a crash, never too low: whoever releases a handle finds all that it has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored, StoreError
from calipy.ipam import handles
from calipy.ipam.block_writer import ATTEMPTS
from calipy.resources import ipam_handles
from calipy.resources.ipam_handles import IPAMHandle

log = logging.getLogger("calipy.ipam")


class HandleWriter:
    """Counts handles' addresses by block, and remembers the handles that it wrote: their release needs no reading."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Stored[IPAMHandle]] = {}

    async def get(self, handle: str) -> IPAMHandle | None:
        """The handle as last written here, perhaps stale, or as the store has it."""
        stored = self._known.get(handle) or await self._read(handle)
        return stored.value if stored is not None else None

    async def read(self, handle: str) -> IPAMHandle | None:
        """The handle as the store has it; None where it has no addresses."""
        stored = await self._read(handle)
        return stored.value if stored is not None else None

    async def add(self, handle: str, counts: Mapping[str, int]) -> None:
        """Counts addresses that are about to be given out. Raises Conflict where others keep changing the handle."""
        for _ in range(ATTEMPTS):
            stored = self._known.get(handle)
            try:
                if stored is None:
                    new = handles.new_handle(handle, counts)
                    self._known[handle] = await self._store.create(ipam_handles.KIND, new)
                else:
                    await self._update(handle, stored, handles.incremented(stored.value, counts))
                return
            except (Conflict, NotFound):
                self._known.pop(handle, None)
            except Exists:
                if await self._read(handle) is None:
                    await self._bury(handle)
        raise _beaten(handle)

    async def subtract(self, handle: str, counts: Mapping[str, int]) -> IPAMHandle | None:
        """Counts addresses that are free again; a handle without addresses is deleted. What is left of it."""
        for _ in range(ATTEMPTS):
            stored = self._known.get(handle) or await self._read(handle)
            if stored is None:
                return None
            left = handles.decremented(stored.value, counts)
            try:
                if left is not None:
                    await self._update(handle, stored, left)
                    return left
                self._known.pop(handle, None)
                await self._store.delete(ipam_handles.KIND, stored)
                return None
            except (Conflict, NotFound):
                self._known.pop(handle, None)
        raise _beaten(handle)

    async def _update(self, handle: str, stored: Stored[IPAMHandle], new: IPAMHandle) -> None:
        if new != stored.value:
            self._known.pop(handle, None)
            self._known[handle] = await self._store.update(ipam_handles.KIND, stored, new)

    async def _read(self, handle: str) -> Stored[IPAMHandle] | None:
        self._known.pop(handle, None)
        try:
            stored = await self._store.get(ipam_handles.KIND, handles.object_name(handle))
        except NotFound:
            return None
        if stored.value.spec.deleted:
            return None
        self._known[handle] = stored
        return stored

    async def _bury(self, handle: str) -> None:
        """Ends a deletion that somebody only began: `deleted: true`."""
        try:
            stored = await self._store.get(ipam_handles.KIND, handles.object_name(handle))
            if stored.value.spec.deleted:
                await self._store.delete(ipam_handles.KIND, stored)
        except (Conflict, NotFound):
            pass


class Account:
    """What a request has counted ahead in its handle: drawn addresses use it up, the rest is taken back at its end."""

    def __init__(self, writer: HandleWriter, handle: str) -> None:
        self._writer = writer
        self._handle = handle
        self._ahead: dict[str, int] = {}

    async def cover(self, counts: Mapping[str, int]) -> None:
        """Makes sure that at least so many are counted ahead."""
        ahead = self._ahead
        missing = {cidr: short for cidr, count in counts.items() if (short := count - ahead.get(cidr, 0)) > 0}
        if missing:
            await self._writer.add(self._handle, missing)
            for cidr, count in missing.items():
                ahead[cidr] = ahead.get(cidr, 0) + count

    def used(self, cidr: str, count: int) -> None:
        """So many of them are held now."""
        self._ahead[cidr] -= count
        if self._ahead[cidr] <= 0:
            del self._ahead[cidr]

    def forsake(self, cidr: str) -> None:
        """It isn't known whether those of a block were given out: they stay counted, until the handle is released."""
        self._ahead.pop(cidr, None)

    async def close(self) -> None:
        """Takes back what wasn't used. Where that fails the handle counts too many, which its release sets right."""
        if not self._ahead:
            return
        try:
            await self._writer.subtract(self._handle, self._ahead)
        except StoreError as error:
            log.warning("handle %s counts too many addresses until its release: %s", self._handle, error)


def _beaten(handle: str) -> Conflict:
    return Conflict(f"handle {handle} was changed by others {ATTEMPTS} times in a row; try again")
