"""What all kinds share: object metadata, the description of a kind, and how a wrong value is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType


class ObjectMeta(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Kubernetes meta/v1 ObjectMeta, the part that CalIPy reads or writes; other fields survive in the store."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Raw, ...] = ()


class Resource(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """Base of all kinds. A subclass fixes `api_version` by a default and its kind by msgspec's tag."""

    metadata: ObjectMeta


class Problem(Struct, frozen=True, gc=False):
    """One thing wrong with one field: what stands there, why that can't be, and what to write instead."""

    field: str
    value: object
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value!r}: {self.reason}; {self.remedy}"


class Refused(ValueError):
    """A resource that can't be accepted: names the object and every problem found."""

    def __init__(self, what: str, problems: Iterable[Problem]) -> None:
        self.what = what
        self.problems = tuple(problems)
        super().__init__(f"{what} is refused: " + " | ".join(map(str, self.problems)))


R = TypeVar("R", bound=Resource)


def no_change_problems(old: Resource, new: Resource) -> tuple[Problem, ...]:
    """The judge of kinds whose every field can change."""
    return ()


class Kind(Struct, Generic[R], frozen=True, gc=False, kw_only=True):
    """One kind: its names in the API, its struct, and its judge of values."""

    name: str
    group: str
    version: str
    plural: str
    type: type[R]
    problems: Callable[[R], Iterable[Problem]]
    change_problems: Callable[[R, R], Iterable[Problem]] = no_change_problems
    """What is wrong with a change from one accepted value (the first) to another: fields that can't change."""
    short_names: tuple[str, ...] = ()
    namespaced: bool = False

    @property
    def api_version(self) -> str:
        """`group/version`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def key(self, value: R) -> Key:
        """The key under which a store holds `value`."""
        return Key(self.name, value.metadata.name, value.metadata.namespace)


class Key(Struct, frozen=True, gc=False, order=True):
    """Identity of an object in a store: kind, name, and namespace ("" for cluster-scoped kinds)."""

    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


def no_problems(value: Resource) -> tuple[Problem, ...]:
    """The judge of kinds that others own and validate (Pod, Namespace, Node)."""
    return ()


def decode(kind: Kind[R], text: bytes | str) -> R:
    """A resource from its JSON. Raises Refused with the field's path when a field has the wrong type or a required
    one is missing. It does not judge values (`accept` does)."""
    try:
        return msgspec.json.decode(text, type=kind.type)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        reason, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$.") or "the object"
        problem = Problem(field, "", reason, f"see the schema of {kind.api_version} {kind.name}")
        raise Refused(kind.name, [problem]) from error


def accept(kind: Kind[R], value: R) -> R:
    """`value` itself if nothing is wrong with it; raises Refused otherwise."""
    problems = tuple(kind.problems(value))
    if problems:
        raise Refused(str(kind.key(value)), problems)
    return value


__all__ = ["UNSET", "Key", "Kind", "ObjectMeta", "Problem", "Raw", "Refused", "Resource", "UnsetType"]
