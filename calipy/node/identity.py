"""This node's own Node object: there on the embedded store, and annotated with its addresses (calico.md 1.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from msgspec import structs

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.resources import nodes
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import Node

ADDRESSES = {4: nodes.IPV4_ADDRESS, 6: nodes.IPV6_ADDRESS}
"""Family -> the annotation that has the node's address."""
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

    def annotated(node: Node) -> Node:
        notes = {**node.metadata.annotations, **wanted}
        annotations = {key: text for key, text in notes.items() if text is not None}
        return structs.replace(node, metadata=structs.replace(node.metadata, annotations=annotations))

    return await change(store, name, annotated)


async def change(store: Store, name: str, make: Callable[[Node], Node]) -> Stored[Node]:
    """The Node as `make` makes it of what it is; nothing is written where that is the same. Raises NotFound, and
    Conflict where others keep changing the object."""
    for _ in range(_ATTEMPTS):
        stored = await store.get(nodes.KIND, name)
        new = make(stored.value)
        if new == stored.value:
            return stored
        try:
            return await store.update(nodes.KIND, stored, new)
        except Conflict:
            continue
    raise Conflict(f"Node/{name} changed {_ATTEMPTS} times while it was to be changed; try again")


async def holders(store: Store, name: str, addresses: Mapping[int, str]) -> AsyncIterator[tuple[int, str]]:
    """The Nodes other than `name` that have any of `addresses` (family -> 10.9.0.11/24) already: family and name."""
    async for page in store.list(nodes.KIND):
        for item in page.items:
            for family, address in addresses.items():
                has = item.value.metadata.annotations.get(ADDRESSES[family], "")
                if item.key.name != name and has and same(has, address):
                    yield family, item.key.name


def same(one: str, other: str) -> bool:
    """Whether two annotations have one address, whatever the length of its subnet's prefix."""
    return one.partition("/")[0] == other.partition("/")[0]
