"""What all kinds share: object metadata, the description of a kind, and how a wrong value is reported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from calipy.resources.definitions import Definition


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
        value = repr(self.value)
        shown = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}..."
        return f"{self.field}: {shown}: {self.reason}; {self.remedy}"


_MOST_SHOWN = 80


class Refused(ValueError):
    """A resource that can't be accepted: names the object and every problem found."""

    def __init__(self, what: str, problems: Iterable[Problem]) -> None:
        self.what = what
        self.problems = tuple(problems)
        super().__init__(f"{what} is refused: " + " | ".join(map(str, self.problems)))


R = TypeVar("R", bound=Resource)


def no_changes(old: Resource, new: Resource) -> tuple[Problem, ...]:
    """The judge of changes for kinds in which everything may change."""
    return ()


class Kind(Struct, Generic[R], frozen=True, gc=False, kw_only=True):
    """One kind: its names in the API, its struct, and its judge of values."""

    name: str
    """What it is called here: no other kind has this name, nor this plural."""
    group: str
    version: str
    plural: str
    type: type[R]
    problems: Callable[[R], Iterable[Problem]]
    changes: Callable[[R, R], Iterable[Problem]] = no_changes
    """Judges an update, (old, new): fields that can't change once they are set."""
    names: Literal["subdomain", "label", "policy", "any"] = "subdomain"
    """What a name may be: a DNS subdomain (RFC 1123) as most objects', a DNS label, one or two labels with a dot
    between them as Calico's policies', or what its maker made of it."""
    short_names: tuple[str, ...] = ()
    namespaced: bool = False
    kind: str = ""
    """What its documents say in `kind`. Left out, it is `name`: two groups may call different things the same."""
    resource: str = ""
    """What the API's paths call it. Left out, it is `plural`."""
    definition: Definition | None = None
    """What a CustomResourceDefinition says of it; None: the API server knows the kind without one."""

    def __post_init__(self) -> None:
        structs.force_setattr(self, "kind", self.kind or self.name)
        structs.force_setattr(self, "resource", self.resource or self.plural)

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


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAMES = {
    "subdomain": (re.compile(rf"{_LABEL}(\.{_LABEL})*"), 253, ", dots"),
    "label": (re.compile(_LABEL), 63, ""),
    "policy": (re.compile(rf"{_LABEL}(\.{_LABEL})?"), 253, ", one dot"),
}
"""Rule -> pattern, most characters, and which dots are for the remedy."""


def name_problems(kind: Kind[R], metadata: ObjectMeta) -> Iterator[Problem]:
    """An object has a name, and a namespace exactly if its kind lives in one; both fit for the API (RFC 1123)."""
    yield from _name_problems("name", metadata.name, kind.names)
    if kind.namespaced and not metadata.namespace:
        yield Problem("metadata.namespace", "", f"is empty, but a {kind.name} lives in one", "name its namespace")
    elif not kind.namespaced and metadata.namespace:
        yield Problem("metadata.namespace", metadata.namespace, f"a {kind.name} lives in none", "leave it out")
    elif kind.namespaced:
        yield from _name_problems("namespace", metadata.namespace, "label")


def _name_problems(field: str, name: str, rule: str) -> Iterator[Problem]:
    if not name:
        yield Problem(f"metadata.{field}", "", "is empty", "name the object")
        return
    if rule not in _NAMES:
        return
    pattern, most, dots = _NAMES[rule]
    if len(name) > most:
        yield Problem(f"metadata.{field}", name, f"has {len(name)} characters", f"{most} at most")
    elif not pattern.fullmatch(name):
        remedy = f"lower-case letters, digits, dashes{dots}; a letter or digit at both ends"
        yield Problem(f"metadata.{field}", name, "can't be a name", remedy)


def decode(kind: Kind[R], text: bytes | str) -> R:
    """A resource from its JSON. Raises Refused with the field's path when a field has the wrong type or a required
    one is missing. It does not judge values (`accept` does)."""
    try:
        return msgspec.json.decode(text, type=kind.type)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise _undecodable(kind, text, str(error)) from error


_MISSING = re.compile(r"Object missing required field `(.+)`")


def _undecodable(kind: Kind[R], text: bytes | str, said: str) -> Refused:
    """What msgspec said, with the object's name and the value that it stumbled over where they can be read."""
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        document = ""
    reason, _, path = said.partition(" - at ")
    field = path.strip("`").removeprefix("$").removeprefix(".")
    value = _value_at(document, field)
    if missing := _MISSING.fullmatch(reason):
        field, value, reason = f"{field}.{missing[1]}".removeprefix("."), "", "is missing"
    found = _value_at(document, "metadata.name"), _value_at(document, "metadata.namespace")
    name, namespace = (part if isinstance(part, str) else "" for part in found)
    what = str(Key(kind.name, name, namespace)) if name else kind.name
    remedy = f"see the schema of {kind.api_version} {kind.kind}"
    return Refused(what, [Problem(field or "the object", value, reason, remedy)])


def _value_at(document: object, path: str) -> object:
    """The value at a path of msgspec's, `spec.peers[0].name`; of a mapping, whose keys it doesn't tell (`[...]`), the
    whole mapping."""
    value = document
    for name, index in _STEP.findall(path.partition("[...]")[0]):
        if isinstance(value, list) and index and int(index) < len(value):
            value = value[int(index)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            return ""
    return value


_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def accept(kind: Kind[R], value: R, old: R | None = None) -> R:
    """`value` itself if nothing is wrong with it, nor with having become so from `old`; raises Refused otherwise."""
    problems = (*kind.problems(value), *(kind.changes(old, value) if old is not None else ()))
    if problems:
        raise Refused(str(kind.key(value)), problems)
    return value


__all__ = ["UNSET", "Key", "Kind", "ObjectMeta", "Problem", "Raw", "Refused", "Resource", "UnsetType"]
