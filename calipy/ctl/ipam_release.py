"""`ipam release`: addresses taken back that nobody uses any more, one by one or as reports tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from calipy.console.failures import Failure
from calipy.ctl import ipam_reports
from calipy.ctl.ipam_reports import Named, ReportedHandle
from calipy.datastore.stores import Conflict, NotFound, Store
from calipy.ipam.allocator import Allocator
from calipy.ipam.errors import Mismatch
from calipy.ipam.handles import object_name
from calipy.ipam.judge import judge
from calipy.ipam.judge.values import Allocation, Snapshot
from calipy.ipam.snapshot import read
from calipy.resources import cluster_informations, ipam_handles
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_configurations import IPAMConfiguration

Say = Callable[[str], None]
_UNUSED = ("leaked", "node-gone")


class _Inputs:
    """What the allocator wants to know, from a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def pools(self) -> tuple[IPPool, ...]:
        return self._snapshot.pools

    def reservations(self) -> tuple[IPReservation, ...]:
        return self._snapshot.reservations

    def configuration(self) -> IPAMConfiguration:
        return self._snapshot.configuration

    def node_labels(self) -> dict[str, str]:
        return {}

    def affinities(self) -> tuple[BlockAffinity, ...]:
        return self._snapshot.affinities


def _allocator(store: Store, snapshot: Snapshot) -> Allocator:
    """One of no node: it claims nothing and gives up no claim."""
    return Allocator(store, "", _Inputs(snapshot), time.time)


async def release_address(store: Store, ip: str, *, force: bool, say: Say) -> None:
    """One address. Raises Failure where somebody uses it, or may; StoreError."""
    snapshot = await read(store)
    found = next((each for each in judge(snapshot, time.time()).allocations if each.address == ip), None)
    if found is None:
        say(f"{ip} is not assigned")
        return
    if found.standing in ("used", "starting", "unknowable") and not force:
        holder = f"pod {found.namespace}/{found.pod}" if found.pod else f"handle {found.handle or '(none)'}"
        reason = f"is held by {holder}, {found.reason or 'which uses it'}"
        raise Failure(f"address {ip}", reason, "delete its holder, or give --force if you know better")
    released = await _allocator(store, snapshot).release_address(ip, found.handle or None, found.sequence)
    say(f"Successfully released IP address {ip}" if released else f"{ip} is not assigned")


async def release_reported(store: Store, reports: Sequence[Named], *, force: bool, version: str, say: Say) -> None:
    """What all reports call unused, and what is unused now: whoever has got or begun to use an address since keeps it.
    So nothing has to be locked. Raises Failure for reports that can't be used; StoreError."""
    try:
        information = await store.get(cluster_informations.KIND, "default")
        guid, revision = information.value.spec.cluster_guid, str(information.revision)
    except NotFound:
        guid, revision = "", ""
    ipam_reports.check(reports, guid=guid, revision=revision, version=version, force=force)
    await _release_addresses(store, reports, say)
    await _release_handles(store, ipam_reports.leaked_handles(named.report for named in reports), say)


async def _release_addresses(store: Store, reports: Sequence[Named], say: Say) -> None:
    leaks = ipam_reports.leaks(named.report for named in reports)
    if not leaks:
        say("Report didn't contain any leaked IPs to clean up.")
        return
    snapshot = await read(store)
    now = {(each.address, each.sequence): each for each in judge(snapshot, time.time()).allocations}
    allocator = _allocator(store, snapshot)
    say(f"Releasing {len(leaks)} old IPs...")
    released = 0
    for leak in leaks:
        held = now.get((leak.ip, leak.sequence_number))
        if held is not None and held.standing not in _UNUSED:
            say(f"{leak.ip} is left alone: {_user(held)} uses it now")
        elif held is not None:
            released += await _released(allocator, held)
    say(f"Released {released} IPs successfully")
    gone = sum((leak.ip, leak.sequence_number) not in now for leak in leaks)
    if gone:
        say(f"{gone} addresses marked as leaked in the report had already been cleaned up.")


def _user(held: Allocation) -> str:
    return f"pod {held.namespace}/{held.pod}" if held.pod else f"handle {held.handle or '(none)'}"


async def _released(allocator: Allocator, held: Allocation) -> bool:
    try:
        return await allocator.release_address(held.address, held.handle or None, held.sequence)
    except Mismatch:
        # Given out anew since it was judged.
        return False


async def _release_handles(store: Store, handles: Sequence[ReportedHandle], say: Say) -> None:
    if not handles:
        say("Report didn't contain any handles to clean up.")
        return
    say(f"Deleting {len(handles)} handles...")
    deleted = 0
    for handle in handles:
        deleted += await _deleted(store, handle)
    say(f"Released {deleted} handles; {len(handles) - deleted} skipped; 0 errors.")


async def _deleted(store: Store, handle: ReportedHandle) -> bool:
    """False where it is gone or has changed since it was reported."""
    try:
        stored = await store.get(ipam_handles.KIND, object_name(handle.id))
        if str(stored.revision) != handle.revision or stored.uid != handle.uid:
            return False
        await store.delete(ipam_handles.KIND, stored)
    except (NotFound, Conflict):
        return False
    return True
