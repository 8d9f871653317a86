"""Group commit: edits of one block that wait at the same time go into one write. The only writer of IPAMBlocks.

An edit is a pure function of the block. It may be applied more than once, after a conflict on a newer block, so it must
find its own work done if it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.ipam.blocks import is_empty, numbered
from calipy.ipam.errors import Corrupt
from calipy.resources import ipam_blocks
from calipy.resources.ipam_blocks import IPAMBlock, name_of

T = TypeVar("T")
Edit = Callable[[IPAMBlock], tuple[IPAMBlock, T]]
"""The block as it is to be (the same object: no change), and what the caller gets. Raising refuses this edit only."""
ATTEMPTS = 100


class _Waiting:
    """One edit. Its caller waits for `turn`: the answer is there, or it is to write for all."""

    def __init__(self, edit: Edit[Any], turn: asyncio.Future[None]) -> None:
        self.edit = edit
        self.turn = turn
        self.answered = False
        self._result: object = None

    def answer(self, result: object) -> None:
        """What the edit gave, or the exception that it or the write raised."""
        if not self.answered:
            self.answered, self._result = True, result
            self.wake()

    def wake(self) -> None:
        """Lets the caller go on."""
        if not self.turn.done():
            self.turn.set_result(None)

    def result(self) -> Any:
        """The answer."""
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


class _Lane:
    """The edits of one block. One of those who wait leads: it writes for all that wait by then, and at its end another
    one leads. So all that one write answers go on at once, and meet again at their next block."""

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.leader: _Waiting | None = None

    def join(self, waiting: _Waiting) -> None:
        """One more; the first one leads."""
        self.waiting.append(waiting)
        if self.leader is None:
            self.appoint()

    def appoint(self) -> None:
        """The next one leads, if there is one."""
        self.leader = next((waiting for waiting in self.waiting if not waiting.turn.cancelled()), None)
        if self.leader is not None:
            self.leader.wake()

    def take(self) -> list[_Waiting]:
        """All that wait, but those who have gone."""
        group, self.waiting = [waiting for waiting in self.waiting if not waiting.turn.cancelled()], []
        return group

    def leave(self, waiting: _Waiting) -> None:
        """The caller has gone, answered or not."""
        if waiting in self.waiting:
            self.waiting.remove(waiting)
        if self.leader is waiting:
            self.appoint()


class BlockWriter:
    """Reads and writes blocks of a store, and remembers those that it saw."""

    def __init__(self, store: Store, prepare: Callable[[IPAMBlock], IPAMBlock] = lambda block: block) -> None:
        """`prepare` is done to each block before the edits of one write, and before it is judged whether it is empty:
        it frees what has cooled down."""
        self._store = store
        self._prepare = prepare
        self._known: dict[str, Stored[IPAMBlock]] = {}
        self._lanes: dict[str, _Lane] = {}
        self.writes = 0
        """Updates that were tried."""
        self.conflicts = 0
        """Those among them that met another's."""

    def known(self, cidr: str) -> IPAMBlock | None:
        """The block as last read or written here; perhaps stale."""
        stored = self._known.get(cidr)
        return stored.value if stored is not None else None

    def is_empty(self, block: IPAMBlock) -> bool:
        """True if no address is held or still cools down."""
        return is_empty(self._prepare(block))

    async def read(self, cidr: str) -> IPAMBlock | None:
        """The block as the store has it now; None where there is none. Raises Corrupt."""
        stored = await self._read(cidr)
        return stored.value if stored is not None else None

    async def all(self) -> AsyncIterator[IPAMBlock]:
        """All nodes' blocks that can be used."""
        async for page in self._store.list(ipam_blocks.KIND):
            for stored in page.items:
                if not stored.value.spec.deleted and not any(ipam_blocks.problems(stored.value)):
                    yield stored.value

    async def edit(self, cidr: str, edit: Edit[T]) -> T:
        """Applies an edit. Raises NotFound where the block is gone, Conflict where others keep changing it, Corrupt,
        and what the edit raises: after each of these nothing is written of it. Any other error leaves that open."""
        lane = self._lanes.setdefault(cidr, _Lane())
        waiting = _Waiting(edit, asyncio.get_running_loop().create_future())
        lane.join(waiting)
        try:
            await waiting.turn
            if not waiting.answered:
                # One turn of the loop for everybody who is about to ask as well.
                await asyncio.sleep(0)
                await self._commit(cidr, lane)
        finally:
            lane.leave(waiting)
            if lane.leader is None:
                self._lanes.pop(cidr, None)
        result: T = waiting.result()
        return result

    async def _commit(self, cidr: str, lane: _Lane) -> None:
        group = lane.take()
        try:
            await self._write(cidr, group)
        except asyncio.CancelledError:
            self._known.pop(cidr, None)
            lane.waiting[:0] = [waiting for waiting in group if not waiting.answered]
            raise
        except Exception as error:
            self._known.pop(cidr, None)
            for waiting in group:
                waiting.answer(error)

    async def _write(self, cidr: str, group: list[_Waiting]) -> None:
        for _ in range(ATTEMPTS):
            stored = self._known.get(cidr) or await self._read(cidr)
            if stored is None:
                raise NotFound(f"block {cidr} is gone; list the blocks again")
            before = self._prepare(stored.value)
            block, results = _applied(before, group)
            try:
                if block is not before:
                    self._known[cidr] = await self._put(stored, numbered(block))
            except (Conflict, NotFound):
                self.conflicts += 1
                self._known.pop(cidr, None)
                continue
            for waiting, result in results:
                waiting.answer(result)
            return
        raise Conflict(f"block {cidr} was changed by others {ATTEMPTS} times in a row; try again")

    async def _put(self, stored: Stored[IPAMBlock], block: IPAMBlock) -> Stored[IPAMBlock]:
        self.writes += 1
        return await self._store.update(ipam_blocks.KIND, stored, block)

    async def _read(self, cidr: str) -> Stored[IPAMBlock] | None:
        self._known.pop(cidr, None)
        try:
            stored = await self._store.get(ipam_blocks.KIND, name_of(cidr))
        except NotFound:
            return None
        if stored.value.spec.deleted:
            return None
        for problem in ipam_blocks.problems(stored.value):
            raise Corrupt(f"block {cidr} is corrupt: {problem.field}: {problem.reason}; {problem.remedy}")
        self._known[cidr] = stored
        return stored

    async def delete_if(self, cidr: str, condition: Callable[[IPAMBlock], bool]) -> bool:
        """Deletes a block if it is as `condition` wants it; True if it is gone."""
        for _ in range(ATTEMPTS):
            stored = await self._read(cidr)
            if stored is None:
                return True
            if not condition(stored.value):
                return False
            self._known.pop(cidr, None)
            try:
                await self._store.delete(ipam_blocks.KIND, stored)
            except Conflict:
                continue
            except NotFound:
                pass
            return True
        raise Conflict(f"block {cidr} was changed by others {ATTEMPTS} times in a row; try again")

    async def claim(self, block: IPAMBlock) -> tuple[IPAMBlock, bool]:
        """The block, made where it is missing, and whether it was: whoever was first, this is what there is."""
        cidr = block.spec.cidr
        for _ in range(ATTEMPTS):
            try:
                stored = self._known[cidr] = await self._store.create(ipam_blocks.KIND, block)
                return stored.value, True
            except Exists:
                found = await self.read(cidr)
                if found is not None:
                    return found, False
                await self._bury(cidr)
        raise Conflict(f"block {cidr} came and went {ATTEMPTS} times while it was claimed; try again")

    async def _bury(self, cidr: str) -> None:
        """Ends a deletion that somebody only began: `deleted: true`."""
        try:
            stored = await self._store.get(ipam_blocks.KIND, name_of(cidr))
            if stored.value.spec.deleted:
                await self._store.delete(ipam_blocks.KIND, stored)
        except (Conflict, NotFound):
            pass


def _applied(block: IPAMBlock, group: list[_Waiting]) -> tuple[IPAMBlock, list[tuple[_Waiting, object]]]:
    results: list[tuple[_Waiting, object]] = []
    for waiting in group:
        try:
            block, result = waiting.edit(block)
        except Exception as error:
            result = error
        results.append((waiting, result))
    return block, results
