"""How `get` prints: what `-o` says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from calipy.console.failures import Failure

_PLAIN = ("table", "wide", "json", "yaml", "name")
_KNOWN = "table, ps, wide, json, yaml, name, custom-columns=NAME,..., go-template=TEMPLATE, go-template-file=FILE"


class Form(Struct, frozen=True, gc=False):
    """One of the forms; `columns` and `template` are for those that have them."""

    name: Literal["table", "wide", "json", "yaml", "name", "columns", "template"]
    columns: tuple[str, ...] = ()
    template: str = ""


def form_of(text: str) -> Form:
    """`-o`'s argument. Raises Failure; OSError for a file that can't be read."""
    word, _, argument = text.partition("=")
    if text in _PLAIN:
        return Form(text)  # type: ignore[arg-type]
    if text == "ps":
        return Form("table")
    if word == "custom-columns" and argument:
        if ":" in argument:
            remedy = "write the titles of columns, as `get -o wide` shows them: NAME,CIDR"
            raise Failure("--output", "names columns by their paths", remedy, value=text)
        return Form("columns", columns=tuple(part.strip().upper() for part in argument.split(",")))
    if word == "go-template" and argument:
        return Form("template", template=argument)
    if word == "go-template-file" and argument:
        return Form("template", template=Path(argument).read_text())
    raise Failure("--output", "is no form", f"known are {_KNOWN}", value=text)
