"""`get`: objects out of the store, as tables or as documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, TextIO

import msgspec
from msgspec import Struct

from calipy.console.failures import Failure, Failures
from calipy.console.formats import write_document
from calipy.console.tables import Column, Table, show, show_parts
from calipy.ctl.columns import Shown, columns_of, in_order
from calipy.ctl.finding import find
from calipy.ctl.forms import Form
from calipy.ctl.go_templates import render
from calipy.ctl.programmed import is_reported, standing
from calipy.ctl.selection import Matches, Selected
from calipy.ctl.waiting import reports_of
from calipy.ctl.whole import Whole, exported, printed, typed, whole
from calipy.datastore.stores import NotFound, Store
from calipy.resources import bgp_configurations, nodes
from calipy.resources.metadata import Kind, Refused


class Found(Struct, frozen=True, gc=False):
    """Objects of one kind. `revision` is the list's, 0 where objects were read one by one."""

    kind: Kind[Any]
    values: tuple[Whole, ...]
    revision: int


async def get(
    store: Store, wanted: Sequence[Selected], *, namespace: str, every_namespace: bool, matches: Matches,
    form: Form, export: bool, stream: TextIO,
) -> None:  # fmt: skip
    """Shows the objects; with `export`, documents say nothing that only this cluster knows. Raises Failures for named
    ones that don't exist, when it has shown the others; Failure for names in all namespaces at once."""
    if every_namespace and any(each.names and each.kind.namespaced for each in wanted):
        raise Failure("--all-namespaces", "can't be combined with names", "name their namespace with -n")
    missing: list[Exception] = []
    found = [
        await _found(store, each, "" if every_namespace else namespace, matches, missing) for each in wanted
    ]  # fmt: skip
    document_of = exported if export else printed
    match form.name:
        case "name":
            names = (f"{part.kind.name.lower()}/{value.metadata.name}" for part in found for value in part.values)
            stream.writelines(f"{name}\n" for name in names)
        case "json" | "yaml" as output:
            if document := _document(wanted, found, document_of):
                write_document(document, output, stream)
        case "template":
            stream.write(_templated(found, form.template, document_of))
        case _:
            await _show_tables(store, wanted, found, form, every_namespace=every_namespace, stream=stream)
    if missing:
        raise Failures(missing)


async def _show_tables(
    store: Store, wanted: Sequence[Selected], found: Sequence[Found], form: Form, *, every_namespace: bool,
    stream: TextIO,
) -> None:  # fmt: skip
    found = [part for each, part in zip(wanted, found, strict=True) if part.values or not each.names]
    default_as = await _default_as(store, found)
    progress = await _progress(store, found) if form.name == "wide" or _PROGRAMMED in form.columns else None
    parts = [_table(part, form, progress, every_namespace=every_namespace, default_as=default_as) for part in found]
    output: Literal["table", "wide"] = "wide" if form.name == "wide" else "table"
    if len(parts) == 1:
        show(parts[0].rows, parts[0].columns, output, stream=stream)
    elif parts:
        show_parts(parts, output, stream=stream)


async def _found(
    store: Store, wanted: Selected, namespace: str, matches: Matches, missing: list[Exception]
) -> Found:  # fmt: skip
    own = namespace if wanted.kind.namespaced else ""
    if not wanted.names:
        return await _listed(store, wanted.kind, own, matches)
    values = []
    for name in wanted.names:
        try:
            values.append((await find(store, wanted.kind, name, own)).value)
        except NotFound as error:
            missing.append(error)
    return Found(wanted.kind, tuple(values), 0)


async def _listed(store: Store, kind: Kind[Any], namespace: str, matches: Matches) -> Found:
    values: list[Whole] = []
    revision = 0
    async for page in store.list(whole(kind), namespace=namespace):
        values += [stored.value for stored in page.items if matches(stored.value.metadata.labels)]
        revision = page.revision
    return Found(kind, tuple(in_order(kind, values)), revision)


Documents = Callable[[Whole], dict[str, object]]


def _document(wanted: Sequence[Selected], found: Sequence[Found], document_of: Documents) -> object:
    """One object that was named, as it is; else a list: of one kind as an API server's, of several a plain List."""
    values = [document_of(value) for part in found for value in part.values]
    if [len(each.names) for each in wanted] == [1]:
        return values[0] if values else None
    if len(found) == 1 and found[0].revision:
        return _kind_list(found[0], document_of)
    return {"apiVersion": "v1", "kind": "List", "items": values}


def _kind_list(part: Found, document_of: Documents) -> dict[str, object]:
    return {
        "apiVersion": part.kind.api_version,
        "kind": f"{part.kind.kind}List",
        "metadata": {"resourceVersion": str(part.revision)},
        "items": [document_of(value) for value in part.values],
    }


def _templated(found: Sequence[Found], template: str, document_of: Documents) -> str:
    """As calicoctl's: the template is given a list of lists, or of the objects that were named."""
    root: list[object] = []
    for part in found:
        root += [_kind_list(part, document_of)] if part.revision else map(document_of, part.values)
    return render(template, msgspec.json.decode(msgspec.json.encode(root)))


Progress = Callable[[Kind[Any], Whole], str]
"""Of an object, on how many nodes it is programmed."""


_PROGRAMMED = "PROGRAMMED"


def _table(
    part: Found, form: Form, progress: Progress | None, *, every_namespace: bool, default_as: int
) -> Table[Shown]:  # fmt: skip
    columns = [
        *columns_of(part.kind, every_namespace=every_namespace or bool(form.columns), default_as=default_as),
        *_programmed_column(part.kind, progress),
    ]
    if form.columns:
        columns = _chosen(part.kind, columns, form.columns)
    return Table(part.kind.plural, part.kind.plural, [_shown(part.kind, value) for value in part.values], columns)


def _chosen(kind: Kind[Any], columns: Sequence[Column[Shown]], titles: Sequence[str]) -> list[Column[Shown]]:
    """The columns that are asked for, in that order. Raises Failure."""
    known = {column.title: msgspec.structs.replace(column, wide=False) for column in columns}
    for title in titles:
        if title not in known:
            raise Failure(
                "custom-columns", f"is no column of {kind.plural}", f"known are {', '.join(known)}", value=title
            )
    return [known[title] for title in titles]


def _programmed_column(kind: Kind[Any], progress: Progress | None) -> Sequence[Column[Shown]]:
    if progress is None or not is_reported(kind.name):
        return ()
    return (Column(_PROGRAMMED, lambda shown: progress(kind, shown.value), wide=True),)


async def _progress(store: Store, found: Sequence[Found]) -> Progress | None:
    """What the nodes report, where any of the kinds is reported."""
    if not any(is_reported(part.kind.name) for part in found):
        return None
    reports, _ = await reports_of(store)
    names = frozenset([item.value.metadata.name async for page in store.list(nodes.KIND) for item in page.items])

    def progress(kind: Kind[Any], value: Whole) -> str:
        standing_of = standing(kind.key(value), int(value.metadata.resource_version or 0), names, reports)
        return f"{len(standing_of.on)}/{len(names)}"

    return progress


def _shown(kind: Kind[Any], value: Whole) -> Shown:
    try:
        return Shown(value, typed(kind, value))
    except Refused as refused:
        sys.stderr.write(f"{kind.key(value)} can't be read (-o yaml shows it): {refused}\n")
        return Shown(value, None)


async def _default_as(store: Store, found: Sequence[Found]) -> int:
    """The AS number of nodes without one of their own: BGPConfiguration's, else Calico's default."""
    default = bgp_configurations.DEFAULT_AS_NUMBER
    if not any(part.kind is nodes.KIND for part in found):
        return default
    try:
        stored = await store.get(bgp_configurations.KIND, "default")
    except (NotFound, Refused):
        return default
    return stored.value.spec.as_number or default
