"""What the source says of a struct and of its fields: docstrings, and the strings that stand below fields.

msgspec drops the latter, so they are read from the source itself.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache

from msgspec import Struct


class Said(Struct, frozen=True, gc=False):
    """Of one class."""

    itself: str
    """Empty where nothing is said."""
    fields: Mapping[str, str]
    """Python name -> text; of a field that isn't there nothing is said."""


def said_of(cls: type) -> Said:
    """Of a class and of its fields, inherited ones too. A class without source (made by msgspec.defstruct) says
    nothing."""
    fields: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        fields |= _own(each).fields
    return Said(_own(cls).itself, fields)


def _own(cls: type) -> Said:
    return _module(cls.__module__).get(cls.__qualname__, _NOTHING)


_NOTHING = Said("", {})


@cache
def _module(name: str) -> Mapping[str, Said]:
    """Class -> what is said, of a module's own classes."""
    if not name.startswith(f"{__package__}."):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {
        node.name: Said(_text(ast.get_docstring(node) or ""), dict(_fields(node)))
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, below in zip(node.body, node.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, _text(text)


def _text(docstring: str) -> str:
    """Paragraphs, each in one line."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
