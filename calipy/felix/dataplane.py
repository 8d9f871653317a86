"""The dataplane: one merged pending Change, one apply in flight, drivers in a fixed order, futures for those who wait.

A Change names owners; each is compiled anew into its driver's ledger; each ledger says which operations are pending;
the drivers write them. What arrives meanwhile merges and goes right after. The kernel is read at start, at resync and
on a notice of a foreign change, never around a write.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from calipy.felix.calc.change import Change, NodeState, later, merge, take
from calipy.felix.ledger import Contradiction, Ledger
from calipy.felix.objects import Driver, Found, ObjectName, Op, Outcome, Owner
from calipy.felix.plans import Plan, Planner
from calipy.telemetry import Pulse

log = logging.getLogger("calipy.felix.dataplane")

INLINE_OPERATIONS = 256
"""Up to so many objects, rules and members are written on the loop itself; more go to the kernel thread."""
SLICE_S = 0.005
"""How long the taking in of a change may hold the loop in one go."""
RETRY_FIRST_S, RETRY_MOST_S = 0.1, 30.0
RESYNC_EVERY_S = 0.8
"""Notices of foreign changes lead to at most one read of a driver in this time: so each is repaired within a second."""


class Refused(Exception):
    """The kernel took not what an owner wants; names owner, object, errno's text."""


class Area:
    """One driver with its planner, its ledger and its retries."""

    def __init__(self, driver: Driver, planner: Planner) -> None:
        self.driver = driver
        self.planner = planner
        self.ledger = Ledger(driver.fingerprint, driver.order)
        self.refused: dict[Owner, str] = {}
        self.retries: dict[Owner, int] = {}
        self.stale = "start"
        """Why the kernel is to be read; empty: it isn't."""
        self.distrusted = True
        """True until the kernel has been read: nothing is written before, for the last answer was not as believed."""
        self.next_read = 0.0
        """Not before this time of the loop's clock."""
        self.busy = False
        """True while the kernel is read, or written on the kernel thread: what vanishes meanwhile isn't known yet."""
        self.repairs = 0
        """Reads after the first that found what others had changed, and losses that the kernel told of."""
        self.writes = 0
        self.operations = 0
        self.reads = 0
        self.refusals = 0

    def forget_retries(self) -> None:
        """An owner that is refused no more starts from the shortest delay the next time."""
        self.retries = {
            owner: count
            for owner, count in self.retries.items()
            if owner in self.refused or not self.ledger.settled(owner)
        }


class _Waiter:
    __slots__ = ("done", "future")

    def __init__(self, done: Callable[[], bool], future: asyncio.Future[None]) -> None:
        self.done = done
        self.future = future


class Dataplane:
    """The kernel's keeper."""

    def __init__(self, areas: Sequence[Area], kernel_thread: ThreadPoolExecutor) -> None:
        self._areas = areas
        self._thread = kernel_thread
        self._wake = asyncio.Event()
        self._pending: Change | None = None
        self._submitted = 0
        self._applied = 0
        self._at_work = False
        self._waiters: list[_Waiter] = []
        self.on_repair: Callable[[str, str], None] = lambda driver, reason: None
        """Called for each repair of a foreign change with the driver's name and what was noticed."""
        self.on_programmed: Callable[[], None] = lambda: None
        """Called when `programmed_revisions` or `refused` may have changed."""
        self.on_settled: Callable[[Area, Change | None], None] = lambda area, change: None
        """Called when an area is brought to what is wanted, as far as the kernel lets us, with what was taken in."""
        self.programmed_revisions: Mapping[str, int] = {}
        """Kind -> the store's revision up to which the kernel holds everything, but for what it refuses."""
        self._taken_revisions: Mapping[str, int] = {}
        self.state: NodeState | None = None
        self.first_apply = asyncio.Event()
        self.pulse = Pulse()

    # --- what others ask for ---

    def submit(self, change: Change) -> int:
        """Takes a change in and returns its serial. Merges with what waits; never blocks."""
        self._pending = change if self._pending is None else merge(self._pending, change)
        self._submitted += 1
        self._wake.set()
        return self._submitted

    async def programmed(self, owners: Iterable[Owner], serial: int) -> None:
        """Returns when the kernel holds what `owners` want as of `serial`; raises Refused if it won't."""
        owners = tuple(owners)

        def done() -> bool:
            if self._applied < serial:
                return False
            self._raise_refused(owners)
            return all(area.ledger.settled(owner) for area in self._areas for owner in owners)

        await self._until(done)

    async def present(self, owner: Owner) -> None:
        """Returns when `owner` has objects and the kernel holds them; raises Refused if it won't."""

        def done() -> bool:
            self._raise_refused((owner,))
            return any(area.ledger.objects(owner) and area.ledger.settled(owner) for area in self._areas)

        await self._until(done)

    async def idle(self) -> None:
        """Returns when all that was submitted is applied, no notice waits, and nothing is left to be written but what
        is held back or refused."""

        def done() -> bool:
            still = all(area.ledger.idle and not area.stale for area in self._areas)
            return not self._at_work and self._applied == self._submitted and still

        await self._until(done)

    async def at_rest(self, driver: str) -> None:
        """Returns between two turns, when the kernel holds what is wanted of a driver, but for what is held back or
        refused. It is so until the next await."""
        area = self.area(driver)
        await self._until(lambda: not self._at_work and not area.distrusted and area.ledger.idle)

    def notice(self, driver: str, reason: str) -> None:
        """Someone else has changed what `driver` keeps: it will be read, and repaired."""
        for area in self._areas:
            if area.driver.name == driver and not area.stale:
                area.stale = reason
                self._wake.set()

    def vanished(self, driver: str, names: Iterable[ObjectName]) -> None:
        """The kernel, or somebody, has taken these objects away: what is wanted of them is written again, unread."""
        area = self.area(driver)
        wanted = [name for name in names if area.ledger.wants(name)]
        for name in wanted:
            area.ledger.vanished(name)
        if area.busy:
            area.stale = "something may have vanished while it was read or written"
        if wanted:
            self._repaired(area, f"{len(wanted)} vanished, {wanted[0].name} first")
        if wanted or area.busy:
            self._wake.set()

    def hold(self, owner: Owner, reason: str) -> None:
        """Keeps operations of an owner back (leftovers that may yet be wanted) until `release`."""
        for area in self._areas:
            area.ledger.hold(owner, reason)

    def release(self, owner: Owner) -> None:
        """Ends a hold."""
        for area in self._areas:
            area.ledger.release(owner)
        self._wake.set()

    @property
    def refused(self) -> Mapping[Owner, str]:
        """Owners that the kernel refuses now, and why."""
        return {owner: why for area in self._areas for owner, why in area.refused.items()}

    def area(self, name: str) -> Area:
        """The area of a driver."""
        return next(area for area in self._areas if area.driver.name == name)

    # --- the rhythm ---

    async def run(self) -> None:
        """Reads the kernel, then applies whenever there is something to do, without end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._at_work = True
            serial = self._submitted
            with self.pulse.turn():
                change = await self._take()
                for area in self._areas:
                    await self._settle(area)
                    self.on_settled(area, change)
            self._applied, self._at_work = serial, False
            self.first_apply.set()
            self._tell()
            if all(area.ledger.idle and not area.distrusted for area in self._areas):
                self.programmed_revisions = self._taken_revisions
            self.on_programmed()
            await asyncio.sleep(0)  # those who wait for rest have their turn before the next one

    async def _take(self) -> Change | None:
        change, self._pending = self._pending, None
        if change is None:
            return None
        if self.state is None:
            if change.settings is None:
                raise RuntimeError("the first change of a dataplane carries settings")
            self.state = NodeState(settings=change.settings)
        self.state = take(self.state, change)
        self._taken_revisions = later(self._taken_revisions, change.revisions)
        until = time.monotonic() + SLICE_S
        for area in self._areas:
            for plan in area.planner.plans(change, self.state):
                if plan is not None:
                    self._enter(area, plan)
                if time.monotonic() >= until:
                    await asyncio.sleep(0)
                    until = time.monotonic() + SLICE_S
        return change

    def _enter(self, area: Area, plan: Plan) -> None:
        if area.refused.pop(plan.owner, None) is not None:
            area.ledger.release(plan.owner)
        needed = self._needed(area, plan.owner) if area.refused else None
        if needed is not None and (plan.objects is not None or plan.problem):
            self._close(area, plan.owner, area.refused[needed])
            return
        problem = plan.problem
        if not problem:
            try:
                area.ledger.want(plan.owner, plan.objects, plan.moved)
            except Contradiction as error:
                problem = str(error)
        if problem:
            users = tuple(user for user in area.planner.users(plan.owner) if user not in area.refused)
            for owner in (plan.owner, *users):
                self._close(area, owner, problem, "can't be made, a mistake in its compiler")
            self._retry_later(area, (plan.owner, *users))

    @staticmethod
    def _needed(area: Area, user: Owner) -> Owner | None:
        """A refused owner that another relies on."""
        return next((owner for owner in area.refused if user in area.planner.users(owner)), None)

    async def _settle(self, area: Area) -> None:
        """Brings one driver's part of the kernel to what is wanted, as far as the kernel lets us."""
        for _ in range(3):
            if area.stale:
                await self._read_in_time(area)
            ops = area.ledger.pending()
            if not ops or area.distrusted:
                return
            outcome = await self._write(area, ops)
            refused, already = {refusal.name for refusal in outcome.refusals}, frozenset(area.refused)
            if not outcome.resync and not (refused and area.driver.transactional):
                area.ledger.landed([op for op in ops if op.name not in refused] if refused else ops)
            for name in outcome.vanished:
                area.ledger.vanished(name)
            for refusal in outcome.refusals:
                self._refuse(area, refusal.name, f"{refusal.name.kind} {refusal.name.name}: {refusal.reason}", already)
            area.forget_retries()
            if outcome.resync:
                log.warning("%s: %s; reading the kernel anew", area.driver.name, outcome.resync)
                area.stale, area.distrusted = outcome.resync, True
            elif not refused and not outcome.vanished:
                return
        area.stale, area.distrusted = area.stale or "refused three times", True
        self._later(RETRY_FIRST_S, self._wake.set)

    async def _read_in_time(self, area: Area) -> None:
        """Reads now, or later if the last time is too near; what is wanted meanwhile is written on trust."""
        now = asyncio.get_running_loop().time()
        if now >= area.next_read:
            if area.reads:
                area.next_read = now + RESYNC_EVERY_S
            await self._read(area)
        else:
            self._later(area.next_read - now, self._wake.set)

    async def _read(self, area: Area) -> None:
        reason, area.stale = area.stale, ""
        log.debug("%s: reading the kernel: %s", area.driver.name, reason)
        believed = {op.name for op in area.ledger.pending()} if area.reads else frozenset()
        found: Found = {}
        area.busy = True
        try:
            for step in area.driver.read():
                if step is None:
                    await asyncio.sleep(0)
                else:
                    found = step
            await self._compared(area, found)
        except OSError as error:
            log.error("%s: the kernel can't be read: %s; trying again", area.driver.name, error)
            area.stale, area.distrusted = reason, True
            self._later(RESYNC_EVERY_S, self._wake.set)
            return
        finally:
            area.busy = False
        area.ledger.found(found, area.driver.leftover)
        area.reads, area.distrusted = area.reads + 1, False
        foreign = {op.name for op in area.ledger.pending()} - believed if area.reads > 1 else None
        if foreign:
            first = min(foreign)
            self._repaired(area, f"{reason}: {len(foreign)} not as written, {first.kind} {first.name} first")

    @staticmethod
    async def _compared(area: Area, found: Found) -> None:
        """The fingerprints that what was read is compared with, made bit by bit."""
        until = time.monotonic() + SLICE_S
        for _ in area.ledger.fingerprints(found):
            if time.monotonic() >= until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S

    def _repaired(self, area: Area, reason: str) -> None:
        area.repairs += 1
        log.warning("%s: repairing a foreign change: %s", area.driver.name, reason)
        self.on_repair(area.driver.name, reason)

    async def _write(self, area: Area, ops: tuple[Op, ...]) -> Outcome:
        area.writes += 1
        area.operations += len(ops)
        area.busy = True
        try:
            if len(ops) <= INLINE_OPERATIONS and sum(map(area.driver.weight, ops)) <= INLINE_OPERATIONS:
                return area.driver.apply(ops)
            return await asyncio.get_running_loop().run_in_executor(self._thread, area.driver.apply, ops)
        except OSError as error:
            return Outcome(resync=f"the kernel's answer is lost: {error}")
        finally:
            area.busy = False

    # --- refusals ---

    def _refuse(self, area: Area, name: ObjectName, reason: str, already: frozenset[Owner]) -> None:
        """Each owner of a refused object takes its closed form, or is held where it has none or where that is refused,
        too; so do those who rely on it. It is retried with them, and nobody else."""
        for owner in area.ledger.owners(name):
            if owner in already:
                area.ledger.hold(owner, reason)
            elif owner not in area.refused:
                users = tuple(user for user in area.planner.users(owner) if user not in area.refused)
                for each in (owner, *users):
                    self._close(area, each, reason)
                self._retry_later(area, (owner, *users))

    def _close(self, area: Area, owner: Owner, reason: str, said: str = "is refused by the kernel") -> None:
        area.refused[owner] = reason
        count = area.retries.get(owner, 0)
        area.refusals += 1
        level = logging.DEBUG if count else logging.ERROR
        log.log(level, "%s %s %s: %s", owner.kind, owner.name, said, reason)
        try:
            self._want_closed(area, owner, reason)
        except Exception as error:  # a second mistake must not end the dataplane: the owner is left out
            log.error("%s %s has no closed form: %s: %s", owner.kind, owner.name, type(error).__name__, error)
            area.ledger.want(owner, None)
        area.retries[owner] = count + 1

    def _want_closed(self, area: Area, owner: Owner, reason: str) -> None:
        assert self.state is not None
        closed = area.planner.closed(owner, self.state)
        if closed is None:
            area.ledger.hold(owner, reason)
        else:
            area.ledger.want(owner, closed)

    def _retry_later(self, area: Area, owners: tuple[Owner, ...]) -> None:
        delay_s = min(RETRY_FIRST_S * 2 ** (area.retries[owners[0]] - 1), RETRY_MOST_S) * random.uniform(0.8, 1.2)
        self._later(delay_s, partial(self._retry, area, owners))

    def _retry(self, area: Area, owners: Sequence[Owner]) -> None:
        """All that was closed with the first of these, and for its sake since then."""
        assert self.state is not None
        owners = tuple(dict.fromkeys((*owners, *area.planner.users(owners[0]))))
        again = [owner for owner in owners if area.refused.pop(owner, None) is not None]
        for owner in again:
            area.ledger.release(owner)
            self._enter(area, area.planner.plan(owner, self.state))
            self._wake.set()

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, call)

    # --- waiters ---

    async def _until(self, done: Callable[[], bool]) -> None:
        if done():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(done, future)
        self._waiters.append(waiter)
        try:
            await future
        finally:
            self._waiters.remove(waiter)

    def _tell(self) -> None:
        for waiter in self._waiters:
            if waiter.future.done():
                continue
            try:
                if waiter.done():
                    waiter.future.set_result(None)
            except Refused as refused:
                waiter.future.set_exception(refused)

    def _raise_refused(self, owners: Iterable[Owner]) -> None:
        for area in self._areas:
            for owner in owners if area.refused else ():
                if owner in area.refused:
                    raise Refused(f"{owner.kind} {owner.name}: the kernel refuses {area.refused[owner]}")
