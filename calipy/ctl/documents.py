"""A document that a user gave, made into an object of its kind, or every reason why it can't be one. Pure."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec
from msgspec import Struct

from calipy.ctl.calico_nodes import core_node, core_patch
from calipy.ctl.fields import unknown_fields
from calipy.ctl.policies import completed
from calipy.ctl.sources import Given
from calipy.ctl.whole import Whole, typed, whole
from calipy.datastore.patches import document as plain
from calipy.datastore.patches import merge
from calipy.resources import kinds, nodes
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Refused, decode, name_problems

Document = dict[str, object]

_CALICO = "projectcalico.org/v3"
_EACH = "[]"
"""In a path: every element of a list."""
_OTHER_NAMES = {(_CALICO, "IPAMConfig"): "IPAMConfiguration"}
_FILTER_RULES = tuple(("spec", name, _EACH) for name in ("exportV4", "importV4", "exportV6", "importV6"))
_AS_NUMBERS: tuple[tuple[str, ...], ...] = (
    ("spec", "asNumber"),
    ("spec", "localASNumber"),
    ("spec", "bgp", "asNumber"),
    *((*rule, "asPathPrefix", _EACH) for rule in _FILTER_RULES),
    *((*rule, "operations", _EACH, "prependASPath", "prefix", _EACH) for rule in _FILTER_RULES),
)
"""Where AS numbers stand."""


class Wanted(Struct, frozen=True, gc=False):
    """An object as a user wants it."""

    where: str
    kind: Kind[Any]
    value: Whole

    @property
    def label(self) -> str:
        """Where it stands and what it is, for messages."""
        return f"{self.where}: {self.kind.key(self.value)}"


def wanted(given: Given, namespace: str) -> Wanted:
    """The object; `namespace` is for one of a namespaced kind that names none. Raises Refused with all its problems."""
    document = cast(Document, _without_nulls(given.document))
    kind = _kind_of(given.where, document)
    problems: list[Problem] = []
    if kind is nodes.KIND and document.get("apiVersion") == _CALICO:
        document, problems = core_node(_with_as_numbers(document))
    document = {**_with_as_numbers(document), "kind": kind.kind}
    metadata = document.get("metadata")
    if kind.namespaced and isinstance(metadata, dict) and not metadata.get("namespace"):
        document["metadata"] = {**metadata, "namespace": namespace}
    what = f"{given.where}: {_called(kind, document)}"
    value, more = _judged(kind, document)
    problems = [*problems, *more]
    if problems or value is None:
        raise Refused(what, problems)
    return Wanted(given.where, kind, completed(kind, value))


def patched(kind: Kind[Any], old: Whole, patch: Document) -> Whole:
    """The object after a merge patch (RFC 7386); of a Node the patch may be Calico's. Raises Refused for fields that
    there are not, wrong types, and fields that aren't users'; values are judged by who writes the object."""
    problems: list[Problem] = []
    patch = _with_as_numbers(patch)
    if kind is nodes.KIND:
        patch, problems = core_patch(patch)
    if "status" in patch:
        reason = "is written by who watches the object, and by nobody else"
        problems.append(Problem("status", patch["status"], reason, "leave it out"))
    problems += unknown_fields(kind, cast(Document, _without_nulls(patch)))
    merged, wrong_types = _decodable(kind, cast(Document, merge(plain(old), patch)))
    if problems := [*problems, *wrong_types]:
        raise Refused(str(kind.key(old)), problems)
    after = completed(kind, decode(whole(kind), msgspec.json.encode(merged)))
    # A policy that is stored under its name of old keeps it.
    same_name = "name" not in cast(Document, patch.get("metadata") or {})
    metadata = msgspec.structs.replace(after.metadata, name=old.metadata.name) if same_name else after.metadata
    return msgspec.structs.replace(after, metadata=metadata)


def _kind_of(where: str, document: Document) -> Kind[Any]:
    name, version = document.get("kind"), document.get("apiVersion")
    known = ", ".join(sorted({kind.kind for kind in kinds.ALL}))
    if not isinstance(name, str) or not name:
        raise Refused(where, [Problem("kind", name, "is missing", f"write one of {known}")])
    found = kinds.spelled(_OTHER_NAMES.get((str(version), name), name))
    if not found:
        raise Refused(where, [Problem("kind", name, "is not known", f"known are {known}")])
    for kind in found:
        if version == kind.api_version or (kind is nodes.KIND and version == _CALICO):
            return kind
    what = f"{where}: {_called(found[0], document)}"
    reason = "is missing" if version in (None, "") else f"is not the one of {found[0].kind}"
    remedy = f"write {' or '.join(kind.api_version for kind in found)}"
    raise Refused(what, [Problem("apiVersion", version, reason, remedy)])


def _called(kind: Kind[Any], document: Document) -> str:
    metadata = document.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    parts = [kind.name, *([found.get("namespace")] if kind.namespaced else []), found.get("name")]
    return "/".join(str(part) for part in parts if part)


def _judged(kind: Kind[Any], document: Document) -> tuple[Whole | None, list[Problem]]:
    problems = list(unknown_fields(kind, document))
    stripped, wrong_types = _decodable(kind, document)
    problems += wrong_types
    try:
        value = decode(whole(kind), msgspec.json.encode(stripped))
    except Refused:
        return None, problems
    problems += (*name_problems(kind, value.metadata), *metadata_problems(value.metadata))
    already = {problem.field for problem in problems}
    try:
        problems += [problem for problem in kind.problems(typed(kind, value)) if problem.field not in already]
    except Refused:
        return None, problems
    return value, problems


def _decodable(kind: Kind[Any], document: Document) -> tuple[Document, list[Problem]]:
    """The document without the fields whose type is wrong, so that each is found and not just the first."""
    problems: list[Problem] = []
    for type_ in (whole(kind), kind):
        while problem := _first_problem(type_, document):
            if problem.field not in {known.field for known in problems}:
                problems.append(problem)
            path = _path(problem.field)
            if not path or not _value_at(document, path)[0]:
                return document, problems
            document = cast(Document, _without(document, path))
    return document, problems


def _first_problem(kind: Kind[Any], document: Document) -> Problem | None:
    try:
        decode(kind, msgspec.json.encode(document))
    except Refused as refused:
        return refused.problems[0]
    return None


def _path(field: str) -> list[str | int]:
    """`spec.communities[0].value` in steps."""
    return [int(step[1:-1]) if step[0] == "[" else step for step in re.findall(r"\[\d+\]|[^.\[\]]+", field)]


def _value_at(value: object, path: list[str | int]) -> tuple[bool, object]:
    for step in path:
        in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not in_list and not (isinstance(value, dict) and step in value):
            return False, None
        value = cast(Any, value)[step]
    return True, value


def _without(value: object, path: list[str | int]) -> object:
    step, rest = path[0], path[1:]
    if isinstance(value, list) and isinstance(step, int):
        inner = [] if not rest else [_without(value[step], rest)]
        return [*value[:step], *inner, *value[step + 1 :]]
    assert isinstance(value, dict)
    if rest:
        return {**value, step: _without(value[step], rest)}
    return {name: member for name, member in value.items() if name != step}


def _without_nulls(value: object) -> object:
    """In Kubernetes a member that is null counts as absent; in lists null is a value."""
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    return value


def _with_as_numbers(document: Document) -> Document:
    """AS numbers that are spelled as text, `64512` or `0.64512` (RFC 5396 asdot+), as the numbers that they are."""
    for path in _AS_NUMBERS:
        document = cast(Document, _with_as_number(document, path))
    return document


def _with_as_number(value: object, path: tuple[str, ...]) -> object:
    if not path:
        return _as_number(value)
    step, rest = path[0], path[1:]
    if step == _EACH:
        return [_with_as_number(member, rest) for member in value] if isinstance(value, list) else value
    if not isinstance(value, dict) or step not in value:
        return value
    return {**value, step: _with_as_number(value[step], rest)}


def _as_number(value: object) -> object:
    """The number, or what stands there where it is none."""
    if not isinstance(value, str):
        return value
    high, dot, low = value.rpartition(".")
    if low.isdecimal() and (high.isdecimal() if dot else True) and int(low) < (1 << 16 if dot else 1 << 32):
        return (int(high or 0) << 16) + int(low)
    return value
