"""What a CustomResourceDefinition says of a kind beyond its struct's fields: columns, constraints, rules in CEL.

Types, defaults, enumerations and descriptions come from the structs and their docstrings (`schema`). Here stands what a
struct can't say, so that the API server refuses what `problems` would.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Column(Struct, frozen=True, gc=False):
    """A printer column (apiextensions/v1 CustomResourceColumnDefinition)."""

    name: str
    path: str
    """JSONPath from the object on, `.spec.cidr`."""
    type: Literal["string", "integer", "boolean", "date"] = "string"
    description: str = ""
    wide: bool = False
    """Shown by `-o wide` alone."""


class Constraint(Struct, frozen=True, gc=False, kw_only=True):
    """OpenAPI keywords for the field at a path (`spec.blockSize`; `[]` stands for the elements of a list or of a
    mapping, `spec.peers[].port`). None: not said."""

    path: str
    pattern: str | None = None
    format: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    list_type: Literal["atomic", "set", "map"] | None = None
    list_keys: tuple[str, ...] = ()
    """Of a list of type map: the fields that tell its elements apart."""


class Validation(Struct, frozen=True, gc=False, kw_only=True):
    """A rule in CEL (x-kubernetes-validations) for the value at a path, `""` for the whole object."""

    path: str
    rule: str
    message: str
    field: str = ""
    """Which field below `path` the API server names (fieldPath, `.cidr`)."""
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"] = (
        "FieldValueInvalid"
    )


class Definition(Struct, frozen=True, gc=False, kw_only=True):
    """How the kind is defined to an API server, besides its schema."""

    columns: tuple[Column, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    validations: tuple[Validation, ...] = ()
    status: bool = False
    """Whether its status is a subresource: written apart from the rest, by whom RBAC lets."""
    selectable: tuple[str, ...] = ()
    """Fields that lists and watches may select by, `.spec.tier`."""
    categories: tuple[str, ...] = ()
