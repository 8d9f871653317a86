"""Handles against blocks: is each address found by its handle. Pure.

A count may be too high after a crash: it goes up before the block is written. It must never be too low.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from calipy.ipam.blocks import handle_of
from calipy.ipam.handles import object_name
from calipy.ipam.judge.worlds import Findings, World, handle_key
from calipy.resources.ipam_blocks import name_of as block_name
from calipy.resources.ipam_handles import IPAMHandle
from calipy.resources.metadata import Key


def look(world: World, findings: Findings) -> None:
    """Puts what is wrong between handles and blocks into `findings`."""
    counted = _counted(world)
    known: set[str] = set()
    for handle in world.snapshot.handles:
        if handle.spec.deleted:
            words = f"handle {handle.spec.handle_id} is marked as deleted and still there"
            findings.add("half-deleted", "note", [handle_key(handle)], words, "nothing: its next user replaces it")
            continue
        _name(handle, findings)
        known.add(handle.metadata.name)
        _counts(handle, counted.get(handle.metadata.name, Counter()), findings)
    for name in sorted(counted.keys() - known):
        cidrs = ", ".join(sorted(counted[name]))
        keys = [handle_key(name), *_block_keys(counted[name])]
        words = f"addresses in {cidrs} are held by a handle that has no object: its release would find nothing"
        remedy = "release them by address: `pycalicoctl ipam release --ip ADDRESS`"
        findings.add("allocation-without-handle", "error", keys, words, remedy)


def _counted(world: World) -> dict[str, Counter[str]]:
    """Handle's object name -> block -> addresses held in it."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for view in world.blocks:
        for entry in view.held:
            handle = handle_of(entry.attribute) if entry.attribute else None
            if handle:
                counted[object_name(handle)][view.cidr] += 1
    return counted


def _name(handle: IPAMHandle, findings: Findings) -> None:
    wanted = object_name(handle.spec.handle_id.partition("\r")[0])
    if handle.metadata.name != wanted:
        words = f"handle {handle.spec.handle_id} must be called {wanted}: by this name nobody finds it"
        findings.add("misnamed", "error", [handle_key(handle)], words, "make it anew under the right name")


def _counts(handle: IPAMHandle, found: Counter[str], findings: Findings) -> None:
    said, name = handle.spec.block, handle.spec.handle_id
    keys = [handle_key(handle), *_block_keys({**said, **found})]
    if not found:
        words = f"handle {name} has no address"
        remedy = "nothing: its release deletes it, and so do the controllers; or delete it"
        findings.add("handle-without-allocation", "warning", keys, words, remedy)
        return
    for cidr in sorted(said.keys() | found.keys()):
        counted, held = said.get(cidr, 0), found.get(cidr, 0)
        if counted < held:
            words = f"handle {name} counts {counted} addresses in {cidr}, the block gives it {held}"
            remedy = "release those too many by address: its own release would leave them"
            findings.add("counter-low", "error", keys, words, remedy, cidr)
        elif counted > held:
            words = f"handle {name} counts {counted} addresses in {cidr}, the block gives it {held}"
            findings.add("counter-high", "note", keys, words, "nothing: its release sets it right", cidr)


def _block_keys(cidrs: dict[str, int]) -> list[Key]:
    return [Key("IPAMBlock", block_name(cidr)) for cidr in cidrs]
