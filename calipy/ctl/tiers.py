"""The tiers of a store, as writing asks for them: which there are, and which have to stay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from calipy.ctl.documents import Wanted
from calipy.ctl.policies import TIERED, deletion_problems
from calipy.datastore.stores import Store
from calipy.resources import tiers
from calipy.resources.metadata import Key, Refused


async def known_tiers(store: Store, objects: Sequence[Wanted]) -> frozenset[str]:
    """The tiers that are stored, and those among the objects that are about to be; none where no policy asks."""
    if not any(wanted.kind in TIERED for wanted in objects):
        return frozenset()
    stored = {each.key.name async for page in store.list(tiers.KIND) for each in page.items}
    return frozenset(stored | {wanted.value.metadata.name for wanted in objects if wanted.kind is tiers.KIND})


async def needed_tiers(store: Store, doomed: Collection[Key]) -> list[Refused]:
    """Those of the objects to be deleted that are tiers and have to stay: Calico's own, and those with policies that
    aren't deleted with them."""
    needed = []
    for key in doomed:
        if key.kind == tiers.KIND.name:
            staying = [policy async for policy, tier in _policies(store) if tier == key.name and policy not in doomed]
            if problems := tuple(deletion_problems(key.name, staying)):
                needed.append(Refused(str(key), problems))
    return needed


async def _policies(store: Store) -> AsyncIterator[tuple[Key, str]]:
    """All policies, and the tiers that they name."""
    for kind in TIERED:
        async for page in store.list(kind):
            for stored in page.items:
                yield stored.key, stored.value.spec.tier
