"""This node's own Node object: there on the embedded store, and annotated with its addresses (calico.md 1.5)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.resources import nodes
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import Node

_ATTEMPTS = 20


async def ensure(store: Store, name: str, labels: Mapping[str, str]) -> Stored[Node]:
    """The Node object, created with `labels` where the store has none (nobody else makes Nodes on the embedded
    store)."""
    try:
        return await store.get(nodes.KIND, name)
    except NotFound:
        pass
    try:
        return await store.create(
            nodes.KIND, Node(metadata=ObjectMeta(name=name, labels={"kubernetes.io/hostname": name, **labels}))
        )
    except Exists:
        return await store.get(nodes.KIND, name)


async def annotate(store: Store, name: str, wanted: Mapping[str, str | None]) -> Stored[Node]:
    """Sets annotations of the Node; None takes one away. Writes nothing where all is so already. Raises NotFound, and
    Conflict where others keep changing the object."""
    for _ in range(_ATTEMPTS):
        stored = await store.get(nodes.KIND, name)
        notes = {**stored.value.metadata.annotations, **wanted}
        annotations = {key: text for key, text in notes.items() if text is not None}
        if annotations == stored.value.metadata.annotations:
            return stored
        metadata = structs.replace(stored.value.metadata, annotations=annotations)
        try:
            return await store.update(nodes.KIND, stored, structs.replace(stored.value, metadata=metadata))
        except Conflict:
            continue
    raise Conflict(f"Node/{name} changed {_ATTEMPTS} times while its annotations were to be set; try again")
