"""Which objects a user means: kinds, names, labels. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from calipy.console.failures import Failure
from calipy.resources import kinds
from calipy.resources.durations import parse_seconds
from calipy.resources.metadata import Kind
from calipy.resources.selectors import SelectorError, parse

Matches = Callable[[Mapping[str, str]], bool]


class Selected(Struct, frozen=True, gc=False):
    """Objects of one kind, by name; no names: all of them."""

    kind: Kind[Any]
    names: tuple[str, ...] = ()


class One(Struct, frozen=True, gc=False):
    """One object, by name."""

    kind: Kind[Any]
    name: str
    namespace: str


def one(word: str, namespace: str) -> One:
    """`tier/a`, `networkpolicy/web` (of `namespace`), `networkpolicy/default/web`. Raises Failure."""
    parts = word.split("/")
    kind = _kind(parts[0])
    most = 3 if kind.namespaced else 2
    if not 2 <= len(parts) <= most or not all(parts):
        form = f"{kind.plural}/[NAMESPACE/]NAME" if kind.namespaced else f"{kind.plural}/NAME"
        raise Failure("argument", "is not one object's name", f"write {form}", value=word)
    return One(kind, parts[-1], (parts[1] if len(parts) == 3 else namespace) if kind.namespaced else "")


def duration(option: str, text: str) -> float:
    """Seconds of `10s`, `1m30s`. Raises Failure."""
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise Failure(option, "is no duration", "write it as 10s or 1m30s", value=text) from error
    if seconds <= 0:
        raise Failure(option, "is no time to wait", "write it as 10s or 1m30s", value=text)
    return seconds


def selected(words: Sequence[str]) -> tuple[Selected, ...]:
    """`ippools`, `ippools,bgppeers`, `ippool a b`, `ippool/a bgppeer/b`. Raises Failure."""
    if not words:
        known = ", ".join(sorted(kind.plural for kind in kinds.ALL))
        raise Failure("KIND", "is missing", f"name one of {known}")
    if any("/" in word for word in words):
        return tuple(_slashed(word) for word in words)
    of = tuple(_kind(word) for word in words[0].split(",") if word)
    if len(of) != 1 and len(words) > 1:
        raise Failure(words[0], "names several kinds, and names follow", "write KIND/NAME for each", value=words[1])
    return tuple(Selected(kind, tuple(words[1:])) for kind in of)


def _slashed(word: str) -> Selected:
    kind, slash, name = word.partition("/")
    if not slash or not kind or not name:
        raise Failure("argument", "stands among others of the form KIND/NAME", "write KIND/NAME for each", value=word)
    return Selected(_kind(kind), (name,))


def _kind(text: str) -> Kind[Any]:
    try:
        return kinds.named(text)
    except KeyError as error:
        known = ", ".join(sorted(kind.plural for kind in kinds.ALL))
        raise Failure("kind", "is not known", f"known are {known}", value=text) from error


_TERM = re.compile(r"\s*(?P<name>!?[A-Za-z0-9_./-]+)\s*(?:(?P<operator>==|=|!=)\s*(?P<value>[A-Za-z0-9_.-]*)\s*)?")


def labels_match(text: str) -> Matches:
    """Kubernetes' equality form (`a=b,c!=d,e,!f`) or Calico's selector language. Raises Failure."""
    terms = [_TERM.fullmatch(part) for part in text.split(",")]
    if all(terms):
        tests = [_equality(term["name"], term["operator"], term["value"]) for term in terms if term]
        return lambda labels: all(test(labels) for test in tests)
    try:
        return parse(text).matches
    except SelectorError as error:
        remedy = "write k=v,k2!=v2, or Calico's selector syntax"
        raise Failure("selector", str(error), remedy, value=text) from error


def _equality(name: str, operator: str | None, value: str | None) -> Matches:
    if operator is None:
        if name.startswith("!"):
            return lambda labels: name[1:] not in labels
        return lambda labels: name in labels
    if operator == "!=":
        return lambda labels: labels.get(name) != value
    return lambda labels: labels.get(name) == value
