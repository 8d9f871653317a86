"""What a CustomResourceDefinition says of a kind beyond its struct's fields: columns, constraints, rules in CEL.

Types, defaults, enumerations and descriptions come from the structs and their docstrings (`schema`). Here stands what a
struct can't say, so that the API server refuses what `problems` would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct


class Column(Struct, frozen=True, gc=False):
    """A printer column (apiextensions/v1 CustomResourceColumnDefinition)."""

    name: str
    path: str
    """JSONPath from the object on, `.spec.cidr`."""
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    description: str = ""
    wide: bool = False
    """Shown by `-o wide` alone."""


class Constraint(Struct, frozen=True, gc=False, kw_only=True):
    """OpenAPI keywords for the field at a path (`spec.blockSize`; `[]` stands for the elements of a list or of a
    mapping, `spec.peers[].port`). None: not said."""

    path: str
    pattern: str | None = None
    format: str | None = None
    enum: tuple[int | str, ...] | None = None
    default: bool | int | str | tuple[str, ...] | None = None
    """What the API server fills in where the field is left out, as Calico's does."""
    minimum: int | None = None
    maximum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    list_type: Literal["atomic", "set", "map"] | None = None
    list_keys: tuple[str, ...] = ()
    """Of a list of type map: the fields that tell its elements apart."""
    map_type: Literal["atomic", "granular"] | None = None


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
    short_names: tuple[str, ...] = ()
    """For kubectl, as Calico's CRDs have them: fewer than `Kind.short_names`, which are calicoctl's aliases."""
    holds: tuple[tuple[str, Callable[[], Any]], ...] = ()
    """Path -> who gives the type of what the struct keeps undecoded."""
    categories: tuple[str, ...] = ()


AGE = Column(
    name="Age", path=".metadata.creationTimestamp", type="date", description="How long ago the object was made."
)
"""What an API server shows of a kind without columns; one that has columns shows nothing else."""

SELECTOR = 1024
"""The most characters of a selector."""


def bounded(most: int, *paths: str) -> tuple[Constraint, ...]:
    """Texts of at most so many characters."""
    return tuple(Constraint(path=path, max_length=most) for path in paths)


def only_default(kind: str) -> Validation:
    """Of a kind whose only object is called default."""
    message = f"only one object is read: name the {kind} default"
    return Validation(path="", field=".metadata.name", rule="self.metadata.name == 'default'", message=message)


def default_or_node(kind: str) -> Validation:
    """Of a kind with one object for the cluster, and one for each node that differs."""
    rule = "self.metadata.name == 'default' || self.metadata.name.startsWith('node.')"
    message = f"no node reads it: name the {kind} default or node.<node name>"
    return Validation(path="", field=".metadata.name", rule=rule, message=message)


def exclusive(path: str, fields: Sequence[str]) -> tuple[Validation, ...]:
    """Of these fields below a path one at most is set; the later one is named."""
    return tuple(
        Validation(
            path=path,
            field=f".{later}",
            rule=f"{unset(f'self.{earlier}')} || {unset(f'self.{later}')}",
            message=f"{earlier} and {later} can't both be set: keep one of them",
            reason="FieldValueForbidden",
        )
        for index, later in enumerate(fields)
        for earlier in fields[:index]
    )


def unset(field: str) -> str:
    """CEL: a text or a list is left out, or empty."""
    return f"(!has({field}) || size({field}) == 0)"
