"""Fields of a document that its kind doesn't have. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec.inspect
from msgspec.inspect import CollectionType, StructType, Type, UnionType, VarTupleType

from calipy.ctl.whole import whole
from calipy.resources.metadata import Kind, Problem

_TAG = "kind"
"""Where msgspec keeps the tag of Resources."""


def unknown_fields(kind: Kind[Any], document: dict[str, object]) -> Iterator[Problem]:
    """A problem for each. Of kinds that others own (the core group) we know but a part; their `spec` and `status` are
    not looked at."""
    yield from _walk("", document, _type_info(whole(kind).type), "")
    if kind.group:
        type_: object = kind.type
        for field in _type_info(type_).fields:
            if field.encode_name == "spec":
                yield from _walk("spec", document.get("spec"), field.type, "spec.")


@cache
def _type_info(type_: object) -> StructType:
    info = msgspec.inspect.type_info(type_)
    assert isinstance(info, StructType)
    return info


def _walk(path: str, value: object, expected: Type, prefix: str) -> Iterator[Problem]:
    for struct in _structs(expected):
        if isinstance(value, dict):
            yield from _walk_struct(value, struct, prefix)
    for members in _lists(expected):
        if isinstance(value, list):
            for index, member in enumerate(value):
                where = f"{path}[{index}]"
                yield from _walk(where, member, members, f"{where}.")


def _walk_struct(value: dict[str, object], struct: StructType, prefix: str) -> Iterator[Problem]:
    known = {field.encode_name: field.type for field in struct.fields}
    for name, member in value.items():
        if name in known:
            yield from _walk(f"{prefix}{name}", member, known[name], f"{prefix}{name}.")
        elif name != _TAG:
            yield Problem(f"{prefix}{name}", member, "is not known", _remedy(name, known))


def _remedy(name: str, known: Iterable[str]) -> str:
    lowered = {field.lower(): field for field in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean {lowered[near[0]]}?" if near else f"known are {', '.join(sorted(lowered.values()))}"


def _structs(expected: Type) -> Iterator[StructType]:
    for option in expected.types if isinstance(expected, UnionType) else (expected,):
        if isinstance(option, StructType):
            yield option


def _lists(expected: Type) -> Iterator[Type]:
    for option in expected.types if isinstance(expected, UnionType) else (expected,):
        if isinstance(option, CollectionType | VarTupleType):
            yield option.item_type
