"""Objects as an API server writes them, alone, in lists and in watches, decoded straight into `resources`."""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec
from msgspec import Raw, Struct, field, structs

from calipy.datastore.kubernetes.trimming import trimmed
from calipy.datastore.misfits import Misfits
from calipy.datastore.stores import Stored, Unavailable
from calipy.resources.metadata import Key, Kind, R, Refused, decode
from calipy.resources.pods import Pod


class ListMeta(Struct, frozen=True, gc=False, rename="camel"):
    """meta/v1 ListMeta."""

    resource_version: str = ""
    continue_: str = field(name="continue", default="")


class ObjectList(Struct, frozen=True, gc=False):
    """A page of a list; its objects are not looked at yet."""

    metadata: ListMeta
    items: tuple[Raw, ...] | None = ()


class WatchEvent(Struct, frozen=True, gc=False):
    """meta/v1 WatchEvent."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Raw


class _BareMeta(Struct, frozen=True, gc=False, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Named(Struct, frozen=True, gc=False):
    metadata: _BareMeta


class Objects:
    """Decodes, leaves out what can't be decoded, and trims the pods of other nodes."""

    def __init__(self, own_node: str) -> None:
        """Of pods on other nodes than `own_node` policy's part is kept; "": all are kept whole."""
        self._own_node = own_node
        self.misfits = Misfits()

    def one(self, kind: Kind[R], text: bytes) -> Stored[R]:
        """An object that was asked for by name. Raises Refused where it can't be decoded."""
        return stored(kind, _loose(decode(kind, text)))

    def of_many(self, kind: Kind[R], text: bytes) -> Stored[R] | None:
        """One of a list or a watch; None where it can't be decoded, the reason is in the log."""
        try:
            value = decode(kind, text)
        except Refused as refused:
            key, revision = identity(kind, text)
            self.misfits.note(key, revision, refused)
            return None
        found = stored(kind, self._trimmed(_loose(value)))
        self.misfits.forget(found.key)
        return found

    def _trimmed(self, value: R) -> R:
        if isinstance(value, Pod) and self._own_node and value.spec.node_name != self._own_node:
            return cast(R, trimmed(value))
        return value


def stored(kind: Kind[R], value: R) -> Stored[R]:
    """As its own metadata says."""
    meta = value.metadata
    return Stored(key=kind.key(value), uid=meta.uid, revision=number(meta.resource_version), value=value)


def typed(kind: Kind[Any], item: Raw) -> bytes:
    """The text of a list's item, of its own: the page isn't kept for its sake. In lists of Kubernetes' own kinds items
    don't say what they are."""
    text = bytes(item)
    if text.startswith(b'{"metadata"'):
        return b'{"kind":"%s","apiVersion":"%s",%s' % (kind.kind.encode(), kind.api_version.encode(), text[1:])
    return text


def number(resource_version: str) -> int:
    """A revision. API servers promise since 1.35 that it is a number that grows, and have always kept it. Raises
    Unavailable."""
    if not resource_version.isdecimal():
        raise Unavailable(f"resourceVersion {resource_version!r} is no number: this is no kube-apiserver on etcd")
    return int(resource_version)


def identity(kind: Kind[Any], text: bytes) -> tuple[Key, int]:
    """Of an object that may be wrong everywhere else. Raises Unavailable."""
    try:
        meta = msgspec.json.decode(text, type=_Named).metadata
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Unavailable(f"the API server sent an object of {kind.plural} that has no metadata: {error}") from error
    return Key(kind.name, meta.name, meta.namespace), number(meta.resource_version)


def _loose(value: R) -> R:
    """Raw fields are views that keep the whole text alive: copies don't."""
    meta = value.metadata
    if not meta.owner_references:
        return value
    own = tuple(raw.copy() for raw in meta.owner_references)
    return structs.replace(value, metadata=structs.replace(meta, owner_references=own))
