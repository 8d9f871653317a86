"""`get`: objects out of the store, as tables or as documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, TextIO

from msgspec import Struct

from calipy.console.failures import Failure, Failures
from calipy.console.formats import write_document
from calipy.console.tables import Column, Table, show, show_parts
from calipy.ctl.columns import Shown, columns_of, in_order
from calipy.ctl.finding import find
from calipy.ctl.programmed import is_reported, standing
from calipy.ctl.selection import Matches, Selected
from calipy.ctl.waiting import reports_of
from calipy.ctl.whole import Whole, printed, typed, whole
from calipy.datastore.stores import NotFound, Store
from calipy.resources import bgp_configurations, nodes
from calipy.resources.metadata import Kind, Refused

Output = Literal["table", "wide", "json", "yaml", "name"]


class Found(Struct, frozen=True, gc=False):
    """Objects of one kind. `revision` is the list's, 0 where objects were read one by one."""

    kind: Kind[Any]
    values: tuple[Whole, ...]
    revision: int


async def get(
    store: Store, wanted: Sequence[Selected], *, namespace: str, every_namespace: bool, matches: Matches,
    output: Output, stream: TextIO,
) -> None:  # fmt: skip
    """Shows the objects. Raises Failures for named ones that don't exist, when it has shown the others; Failure for
    names in all namespaces at once."""
    if every_namespace and any(each.names and each.kind.namespaced for each in wanted):
        raise Failure("--all-namespaces", "can't be combined with names", "name their namespace with -n")
    missing: list[Exception] = []
    found = [
        await _found(store, each, "" if every_namespace else namespace, matches, missing) for each in wanted
    ]  # fmt: skip
    if output == "name":
        names = (f"{part.kind.name.lower()}/{value.metadata.name}" for part in found for value in part.values)
        stream.writelines(f"{name}\n" for name in names)
    elif output == "json" or output == "yaml":
        if document := _document(wanted, found):
            write_document(document, output, stream)
    else:
        found = [part for each, part in zip(wanted, found, strict=True) if part.values or not each.names]
        default_as = await _default_as(store, found)
        progress = await _progress(store, found) if output == "wide" else None
        _show(found, output, progress, every_namespace=every_namespace, default_as=default_as, stream=stream)
    if missing:
        raise Failures(missing)


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


def _document(wanted: Sequence[Selected], found: Sequence[Found]) -> object:
    """One object that was named, as it is; else a list: of one kind as an API server's, of several a plain List."""
    values = [printed(value) for part in found for value in part.values]
    if [len(each.names) for each in wanted] == [1]:
        return values[0] if values else None
    if len(found) == 1 and found[0].revision:
        version, name = found[0].kind.api_version, f"{found[0].kind.kind}List"
        revision = str(found[0].revision)
        return {"apiVersion": version, "kind": name, "metadata": {"resourceVersion": revision}, "items": values}
    return {"apiVersion": "v1", "kind": "List", "items": values}


Progress = Callable[[Kind[Any], Whole], str]
"""Of an object, on how many nodes it is programmed."""


def _show(
    found: Sequence[Found], output: Literal["table", "wide"], progress: Progress | None, *, every_namespace: bool,
    default_as: int, stream: TextIO,
) -> None:  # fmt: skip
    parts = [
        Table(
            part.kind.plural, part.kind.plural, [_shown(part.kind, value) for value in part.values],
            [
                *columns_of(part.kind, every_namespace=every_namespace, default_as=default_as),
                *_programmed_column(part.kind, progress),
            ],
        )
        for part in found
    ]  # fmt: skip
    if not parts:
        return
    if len(parts) == 1:
        show(parts[0].rows, parts[0].columns, output, stream=stream)
    else:
        show_parts(parts, output, stream=stream)


def _programmed_column(kind: Kind[Any], progress: Progress | None) -> Sequence[Column[Shown]]:
    if progress is None or not is_reported(kind.name):
        return ()
    return (Column("PROGRAMMED", lambda shown: progress(kind, shown.value), wide=True),)


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
