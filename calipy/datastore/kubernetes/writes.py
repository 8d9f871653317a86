"""Creating, changing and deleting objects, each under the precondition that it is as it was read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from calipy.datastore import lifecycles
from calipy.datastore.kubernetes.calls import Call, creation, on_object
from calipy.datastore.kubernetes.client import Client
from calipy.datastore.kubernetes.objects import Objects
from calipy.datastore.lifecycles import Document, metadata_of, sent_by_client
from calipy.datastore.patches import document, encode_patch
from calipy.datastore.stores import Conflict, Stored
from calipy.resources.metadata import Kind, ObjectMeta, R, accept

_STATUS = "status"


class Writes:
    """Writes to one server."""

    def __init__(self, client: Client, objects: Objects) -> None:
        self._client = client
        self._objects = objects

    async def create(self, kind: Kind[R], value: R) -> Stored[R]:
        """A status that the server takes only apart is written right after. Raises Exists, Refused."""
        lifecycles.check_metadata(kind, value)
        accept(kind, value)
        whole = sent_by_client(document(value))
        call = creation(kind, kind.key(value), msgspec.json.encode(whole))
        created = self._read(kind, await self._client.ask(call))
        if whole.get(_STATUS) and _status_is_apart(kind):
            return await self._patch(kind, created, _STATUS, {_STATUS: whole[_STATUS]})
        return created

    async def update(self, kind: Kind[R], old: Stored[R], new: R) -> Stored[R]:
        """Nothing is asked where nothing changes. Raises Conflict, NotFound, Refused."""
        before, now = old.value.metadata, new.metadata
        lifecycles.refuse_rename(str(old.key), _named(before), _named(now))
        lifecycles.accept_change(kind, old.value, new)
        patch = sent_by_client(encode_patch(kind, old.value, new))
        stored = old
        for subresource, part in _parts(kind, patch):
            stored = await self._patch(kind, stored, subresource, part)
        return stored

    async def delete(self, kind: Kind[R], old: Stored[R]) -> None:
        """Raises Conflict, NotFound."""
        preconditions = {"uid": old.uid, "resourceVersion": str(old.revision)}
        body = msgspec.json.encode({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions})
        await self._if_unchanged(old, on_object("delete", kind, old.key, body=body))

    async def _patch(self, kind: Kind[R], old: Stored[R], subresource: str, patch: Document) -> Stored[R]:
        meta = {**metadata_of(patch), "uid": old.uid, "resourceVersion": str(old.revision)}
        body = msgspec.json.encode({**patch, "metadata": meta})
        call = on_object("patch", kind, old.key, subresource=subresource, body=body)
        return self._read(kind, await self._if_unchanged(old, call))

    async def _if_unchanged(self, old: Stored[Any], call: Call) -> bytes:
        try:
            return await self._client.ask(call)
        except Conflict as conflict:
            raise Conflict(
                f"{old.key} has changed since it was at revision {old.revision}; read it again"
            ) from conflict

    def _read(self, kind: Kind[R], text: bytes) -> Stored[R]:
        return self._objects.one(kind, text)


def _named(meta: ObjectMeta) -> Document:
    return {"name": meta.name, "namespace": meta.namespace}


def _parts(kind: Kind[Any], patch: Document) -> Iterator[tuple[str, Document]]:
    """What goes to the object and what to its status, in this order."""
    if not patch.get("metadata", True):
        patch = {name: part for name, part in patch.items() if name != "metadata"}
    if _is_reported(kind, patch):
        yield _STATUS, patch
        return
    apart = _STATUS in patch and _status_is_apart(kind)
    main = {name: part for name, part in patch.items() if not (apart and name == _STATUS)}
    if main:
        yield "", main
    if apart:
        yield _STATUS, {_STATUS: patch[_STATUS]}


def _status_is_apart(kind: Kind[Any]) -> bool:
    return kind.name in ("Pod", "Node") or (kind.definition is not None and kind.definition.status)


def _is_reported(kind: Kind[Any], patch: Document) -> bool:
    """True for annotations and status of Kubernetes' own: their status takes both, and whoever may write that alone
    can't change what a pod or a node is."""
    if kind.name not in ("Pod", "Node") or not patch or patch.keys() - {"metadata", _STATUS}:
        return False
    return not metadata_of(patch).keys() - {"annotations"}
