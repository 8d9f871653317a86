"""What `-f` names: files, folders, standard input; and the documents in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct

from calipy.console.failures import Failure
from calipy.ctl.texts import documents
from calipy.resources.metadata import Problem, Refused

_SUFFIXES = (".yaml", ".yml", ".json")


class Given(Struct, frozen=True, gc=False):
    """One document that a user gave, and where it stands: `pools.yaml, document 2`."""

    where: str
    document: dict[str, object]


def read(
    names: Iterable[str], *, recursive: bool, skip_empty: bool, stdin: BinaryIO
) -> tuple[list[Given], list[Exception]]:
    """All documents of all files, and what could not be read of them. Raises Failure where nothing is named, unless
    `skip_empty`; OSError for a file that can't be opened."""
    given: list[Given] = []
    wrong: list[Exception] = []
    for where, content in _contents(names, recursive=recursive, skip_empty=skip_empty, stdin=stdin):
        try:
            for document in _flattened(where, _text(where, content)):
                given.append(document)
        except Refused as refused:
            wrong.append(refused)
    if not given and not wrong and not skip_empty:
        raise Failure(" ".join(names), "holds no document", "write one, or name another file")
    return given, wrong


def _contents(
    names: Iterable[str], *, recursive: bool, skip_empty: bool, stdin: BinaryIO
) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if name == "-":
            yield "standard input", stdin.read()
        elif Path(name).is_dir():
            found = sorted(Path(name).rglob("*") if recursive else Path(name).iterdir())
            files = [path for path in found if path.suffix in _SUFFIXES and path.is_file()]
            if not files and not skip_empty:
                raise Failure(f"folder {name}", f"has no file {', '.join(_SUFFIXES)}", "-R looks into its folders too")
            for path in files:
                yield str(path), path.read_bytes()
        else:
            yield name, Path(name).read_bytes()


def _text(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(f"byte {error.start}", "", "is not UTF-8", "save the file in UTF-8")
        raise Refused(where, [problem]) from error


def _flattened(where: str, text: str) -> Iterator[Given]:
    for number, document in enumerate(documents(where, text), start=1):
        place = f"{where}, document {number}"
        if document is None:
            continue
        if not isinstance(document, dict):
            problem = Problem("the document", document, "is not an object", "write apiVersion, kind, metadata, spec")
            raise Refused(place, [problem])
        yield from _items(place, cast(dict[str, object], document))


def _items(where: str, document: dict[str, object]) -> Iterator[Given]:
    """The members of a List or of a <Kind>List, or the document itself. Members of the second may leave out what the
    list says of them all, as in answers of an API server."""
    kind, items = document.get("kind"), document.get("items")
    if not (isinstance(kind, str) and kind.endswith("List") and "items" in document):
        yield Given(where, document)
        return
    if not isinstance(items, list):
        raise Refused(where, [Problem("items", items, "is not a list", "write a list of objects")])
    common = {} if kind == "List" else {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}
    for number, item in enumerate(items, start=1):
        place = f"{where}, item {number}"
        if not isinstance(item, dict):
            raise Refused(place, [Problem("the item", item, "is not an object", "write apiVersion, kind, metadata")])
        yield from _items(place, {**common, **item})
