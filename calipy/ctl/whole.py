"""Objects with every field that a store holds, also those that the structs of `resources` don't know.

A store decodes into the type of the kind that it is asked for. `whole` makes of each kind one whose type keeps `spec`,
`status` and what else the kind has as they stand, and judges values as the kind itself does.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from calipy.resources.metadata import Kind, ObjectMeta, Problem, Refused, Resource, decode


class WholeMeta(ObjectMeta, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """All of Kubernetes meta/v1 ObjectMeta."""

    generate_name: str = ""
    self_link: str = ""
    deletion_grace_period_seconds: int | None = None
    managed_fields: tuple[Raw, ...] = ()


class Whole(Resource, frozen=True, gc=False, kw_only=True, rename="camel"):
    """An object of any kind."""

    api_version: str
    kind: str
    metadata: WholeMeta
    spec: dict[str, object] | UnsetType = UNSET
    status: dict[str, object] | UnsetType = UNSET


def others(type_: type[Whole]) -> tuple[str, ...]:
    """The members of objects beside those that all have: of a Secret its data, of an EndpointSlice its endpoints."""
    return tuple(name for name in type_.__struct_fields__ if name not in Whole.__struct_fields__)


def _whole_type(kind: Kind[Any]) -> type[Whole]:
    fields = [field for field in msgspec.structs.fields(kind.type) if field.name not in Whole.__struct_fields__]
    if not fields:
        return Whole
    return cast(
        type[Whole],
        msgspec.defstruct(
            f"Whole{kind.name}", [(field.name, Any, UNSET) for field in fields], bases=(Whole,), frozen=True, gc=False,
            kw_only=True, rename={field.name: field.encode_name for field in fields},
        ),
    )  # fmt: skip


@cache
def whole(kind: Kind[Any]) -> Kind[Whole]:
    """`kind`, with all fields of its objects."""

    def problems(value: Whole) -> Iterable[Problem]:
        try:
            return tuple(kind.problems(typed(kind, value)))
        except Refused as refused:
            return refused.problems

    def changes(old: Whole, new: Whole) -> Iterable[Problem]:
        try:
            return tuple(kind.changes(typed(kind, old), typed(kind, new)))
        except Refused:
            # One of the two can't be read: `problems` has said so of the new one; the old one is no measure.
            return ()

    return Kind(
        name=kind.name, group=kind.group, version=kind.version, plural=kind.plural, type=_whole_type(kind),
        problems=problems, changes=changes, names=kind.names, short_names=kind.short_names,
        namespaced=kind.namespaced, kind=kind.kind, resource=kind.resource,
    )  # fmt: skip


def typed(kind: Kind[Any], value: Whole) -> Any:
    """The object as its own kind's struct. Raises Refused."""
    return decode(kind, msgspec.json.encode(value))


def printed(value: Whole) -> dict[str, object]:
    """The object as a document, its fields in the order in which people read them."""
    document: dict[str, object] = {"apiVersion": value.api_version, "kind": value.kind, "metadata": value.metadata}
    for field in msgspec.structs.fields(type(value)):
        part = getattr(value, field.name)
        if part is not UNSET:
            document[field.encode_name] = part
    return document


def exported(value: Whole) -> dict[str, object]:
    """The document without what only its cluster knows of it: to be written elsewhere."""
    meta = value.metadata
    kept = WholeMeta(name=meta.name, namespace=meta.namespace, labels=meta.labels, annotations=meta.annotations)
    document = printed(msgspec.structs.replace(value, metadata=kept))
    document.pop("status", None)
    return document
