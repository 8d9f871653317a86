"""Objects by the names that users give them."""

from __future__ import annotations

from typing import Any

from calipy.ctl.policies import spellings
from calipy.ctl.whole import Whole, whole
from calipy.datastore.stores import NotFound, Store, Stored
from calipy.resources.metadata import Kind


async def find(store: Store, kind: Kind[Any], name: str, namespace: str) -> Stored[Whole]:
    """The object that is meant. Raises NotFound, for the name as it was given."""
    missing: NotFound | None = None
    for spelling in spellings(kind, name):
        try:
            return await store.get(whole(kind), spelling, namespace)
        except NotFound as error:
            missing = missing or error
    assert missing is not None
    raise missing
