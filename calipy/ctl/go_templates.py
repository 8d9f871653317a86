"""Go templates (text/template) as calicoctl's users write them for `get -o go-template`, as far as tables need. Pure.

Text; `{{.Spec.CIDR}}`, fields by their Go names or by those of the document; `{{range .Items}}`, `{{if .Spec.Node}}`,
`{{else}}`, `{{end}}`; `{{join .Spec.Nets ","}}`, `{{len .Spec.Ports}}`; strings; comments; `{{-` and `-}}`, which trim.
A field that isn't there is `<no value>`, as Go prints what a map doesn't hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from calipy.console.failures import Failure

_ACTION = re.compile(
    r"""\{\{(?P<left>-\s)?\s*(?P<said>/\*.*?\*/|(?:"(?:\\.|[^"\\])*"|[^}"])*?)\s*(?P<right>\s-)?\}\}""", re.S
)
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|[^\s"]+')
_FIELDS = re.compile(r"\.|(\.[A-Za-z_][A-Za-z0-9_]*)+")
_PROMOTED = {
    "name", "namespace", "labels", "annotations", "uid", "resourceversion", "creationtimestamp", "generation",
    "finalizers",
}  # fmt: skip
"""Fields of metadata that in Go are fields of the object, too."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_NO_VALUE = "<no value>"

Node = Callable[[object], Iterator[str]]
Value = Callable[[object], object]


class _Piece(NamedTuple):
    text: str
    is_action: bool


def render(template: str, root: object) -> str:
    """What the template makes of JSON values. Raises Failure for what is no template, and for what isn't known here."""
    pieces = list(_pieces(template))
    nodes, rest = _block(pieces, 0)
    if rest < len(pieces):
        raise _failure(pieces[rest].text, "ends nothing that was begun")
    return "".join(_all(nodes, root))


def _pieces(template: str) -> Iterator[_Piece]:
    position, trim = 0, False
    for found in _ACTION.finditer(template):
        text = template[position : found.start()]
        text = text.lstrip() if trim else text
        yield _Piece(text.rstrip() if found["left"] else text, False)
        if not found["said"].startswith("/*"):
            yield _Piece(found["said"], True)
        position, trim = found.end(), found["right"] is not None
    last = template[position:]
    if "{{" in last:
        raise _failure(last[last.index("{{") :][:20], "is not closed, or can't be understood")
    yield _Piece(last.lstrip() if trim else last, False)


def _block(pieces: Sequence[_Piece], at: int) -> tuple[list[Node], int]:
    """The nodes up to an `end` or `else` that isn't theirs, or the end of all; and where that is."""
    nodes: list[Node] = []
    while at < len(pieces):
        text, is_action = pieces[at]
        word, _, rest = text.partition(" ")
        if not is_action:
            nodes.append(_text(text))
        elif word in ("end", "else"):
            return nodes, at
        elif word in ("range", "if"):
            node, at = _branch(pieces, at, word, _value(rest.strip(), text))
            nodes.append(node)
        else:
            nodes.append(_shown(_value(text, text)))
        at += 1
    return nodes, at


def _branch(pieces: Sequence[_Piece], start: int, word: str, value: Value) -> tuple[Node, int]:
    """A `range` or an `if` with its `else`, and where its `end` is."""
    body, at = _block(pieces, start + 1)
    otherwise: list[Node] = []
    if at < len(pieces) and pieces[at].text == "else":
        otherwise, at = _block(pieces, at + 1)
    if at >= len(pieces) or pieces[at].text != "end":
        found = pieces[at].text if at < len(pieces) else "the end"
        raise _failure(pieces[start].text, f"wants {{{{end}}}}, and {found} comes first")

    def node(dot: object) -> Iterator[str]:
        found = value(dot)
        if not found:
            yield from _all(otherwise, dot)
        elif word == "if":
            yield from _all(body, dot)
        else:
            for member in found.values() if isinstance(found, dict) else found if isinstance(found, list) else [found]:
                yield from _all(body, member)

    return node, at


def _all(nodes: Sequence[Node], dot: object) -> Iterator[str]:
    for node in nodes:
        yield from node(dot)


def _text(text: str) -> Node:
    return lambda _: iter((text,))


def _shown(value: Value) -> Node:
    return lambda dot: iter((printed(value(dot)),))


def _value(text: str, action: str) -> Value:
    """A field, a string, `join FIELD STRING`, or `len FIELD`."""
    words = _WORD.findall(text)
    if len(words) == 1:
        return _operand(words[0], action)
    if len(words) == 3 and words[0] == "join":
        items, separator = _operand(words[1], action), _operand(words[2], action)
        return lambda dot: str(separator(dot)).join(map(printed, _items(items(dot))))
    if len(words) == 2 and words[0] == "len":
        counted = _operand(words[1], action)
        return lambda dot: len(_items(counted(dot)))
    raise _failure(action, "is beyond what this program knows of Go templates")


def _operand(word: str, action: str) -> Value:
    if word.startswith('"'):
        text = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), word[1:-1])
        return lambda _: text
    if not _FIELDS.fullmatch(word):
        raise _failure(action, "is beyond what this program knows of Go templates")
    names = [name for name in word.split(".") if name]

    def value(dot: object) -> object:
        for name in names:
            dot = _field(dot, name)
        return dot

    return value


def _field(value: object, name: str) -> object:
    """By its Go name: as in the document but for the case; what Go embeds is found through its host."""
    if not isinstance(value, dict):
        return None
    wanted = name.lower()
    if wanted == "objectmeta":
        return value.get("metadata")
    if wanted == "typemeta":
        return value
    for own, member in value.items():
        if own.lower() == wanted:
            return member
    metadata = value.get("metadata")
    return _field(metadata, name) if wanted in _PROMOTED and isinstance(metadata, dict) else None


def _items(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return sorted(f"{name}={printed(member)}" for name, member in value.items())
    return value if isinstance(value, list) else [] if value is None else [value]


def printed(value: object) -> str:
    """As Go's fmt prints it: `[a b]`, `map[a:b]`, true."""
    match value:
        case None:
            return _NO_VALUE
        case bool():
            return str(value).lower()
        case list():
            return f"[{' '.join(map(printed, value))}]"
        case dict():
            members = (f"{name}:{printed(member)}" for name, member in sorted(value.items()))
            return f"map[{' '.join(members)}]"
    return str(value)


def _failure(action: str, reason: str) -> Failure:
    remedy = "use fields, range, if, else, end, join and len; or -o json and a program that reads it"
    return Failure("go-template", reason, remedy, value=action)
