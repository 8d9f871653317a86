"""Each block by itself: do its lists agree, does it point at what is there. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from calipy.ipam.judge.worlds import BlockView, Findings, World, block_key

_NOT_MENDED = "stop what writes to it and restore it from a backup, or release its addresses and delete it"


def look(world: World, findings: Findings) -> None:
    """Puts what is wrong inside of blocks into `findings`."""
    for block in world.snapshot.blocks:
        if block.spec.deleted:
            findings.add(
                "half-deleted",
                "note",
                [block_key(block)],
                f"block {block.spec.cidr} is marked as deleted and still there",
                "nothing: who claims it next deletes it first",
                block.spec.cidr,
            )
    for block in world.unreadable:
        words = f"spec.cidr {block.spec.cidr!r} is no CIDR"
        findings.add("lists-disagree", "error", [block_key(block)], words, "delete the object", block.spec.cidr)
    for view in world.blocks:
        for words in _disagreements(view):
            findings.add("lists-disagree", "error", [view.key], f"block {view.cidr}: {words}", _NOT_MENDED, view.cidr)
        _attributes(view, findings)
        _reserved(world, view, findings)
        _cooled(world, view, findings)


def _disagreements(view: BlockView) -> Iterator[str]:
    spec, size = view.block.spec, view.network.num_addresses
    if len(spec.allocations) != size:
        yield f"spec.allocations has {len(spec.allocations)} entries where the block has {size} addresses"
        return
    counts = Counter(spec.unallocated)
    taken = {entry.ordinal for entry in view.entries}
    for words, ordinals in (
        ("spec.unallocated names ordinals twice", {o for o, n in counts.items() if n > 1}),
        ("spec.unallocated names ordinals that the block doesn't have", {o for o in counts if not 0 <= o < size}),
        ("spec.unallocated names ordinals that are allocated", counts.keys() & taken),
        ("spec.unallocated lacks ordinals that are free", set(range(size)) - taken - counts.keys()),
    ):
        if ordinals:
            yield f"{words}: {_listed(ordinals)}"


def _attributes(view: BlockView, findings: Findings) -> None:
    known = len(view.block.spec.attributes)
    for entry in view.entries:
        if entry.attribute is not None:
            continue
        if 0 <= entry.index < known:
            words = f"spec.attributes[{entry.index}], to which {entry.address} points, can't be read"
        else:
            words = f"{entry.address} points at attribute {entry.index} of {known}"
        findings.add("attribute-missing", "error", [view.key], words, _NOT_MENDED, entry.address)


def _reserved(world: World, view: BlockView, findings: Findings) -> None:
    if not any(view.network.overlaps(network) for network in world.reserved if network.version == view.network.version):
        return
    for entry in view.held:
        if world.is_reserved(entry.address):
            words = f"{entry.address} is allocated, though a reservation covers it"
            remedy = "nothing: who asks for it by its address may have it; it isn't given out again by itself"
            findings.add("reserved-allocated", "note", [view.key], words, remedy, entry.address)


def _cooled(world: World, view: BlockView, findings: Findings) -> None:
    limit = world.snapshot.configuration.spec.ip_cooldown_seconds
    over = [e for e in view.cooling if e.attribute and world.old(e.attribute.released_at, limit)]
    if over:
        words = f"{len(over)} addresses of block {view.cidr} have cooled down and aren't free yet"
        findings.add("cooled-down", "note", [view.key], words, "nothing: the block's next write frees them", view.cidr)


def _listed(ordinals: set[int]) -> str:
    shown = ", ".join(map(str, sorted(ordinals)[:8]))
    return f"{shown} and {len(ordinals) - 8} more" if len(ordinals) > 8 else shown
