"""`patch` and `label`: one object, changed where it stands. A change by somebody else meanwhile is not lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from calipy.console.failures import Failure
from calipy.ctl.documents import Document, Wanted, patched
from calipy.ctl.finding import find
from calipy.ctl.policies import tier_of, tier_problems
from calipy.ctl.selection import One
from calipy.ctl.texts import documents
from calipy.ctl.tiers import known_tiers
from calipy.ctl.whole import Whole, whole
from calipy.datastore.lifecycles import accept_change
from calipy.datastore.stores import Conflict, Store
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Refused

_MOST_TRIES = 5
"""So often a write is tried that loses against another writer."""


def patch_of(text: str, form: str) -> Document:
    """The merge patch that is meant by `--patch` and `--type`. As with calicoctl they all are one: of Calico's kinds no
    list is merged by a strategic patch. Raises Failure, Refused."""
    found = list(documents("--patch", text))
    if form == "json" and len(found) == 1 and isinstance(found[0], list):
        remedy = "write the fields as they are to be, as an object"
        raise Failure("--patch", "is a list of operations (RFC 6902), which this program doesn't know", remedy)
    if len(found) != 1 or not isinstance(found[0], dict):
        raise Failure("--patch", "is no object", """write one, '{"spec": {"disabled": true}}'""", value=text)
    patch = cast(Document, found[0])
    if problems := list(_directives("", patch)):
        raise Refused("--patch", problems)
    return patch


def _directives(path: str, value: object) -> Iterator[Problem]:
    """Strategic patches' own fields, `$patch` and others."""
    if isinstance(value, list):
        for index, member in enumerate(value):
            yield from _directives(f"{path}[{index}]", member)
    if isinstance(value, dict):
        for name, member in value.items():
            where = f"{path}.{name}".removeprefix(".")
            if name.startswith("$"):
                remedy = "write the whole list or object as it is to be; null removes a field"
                yield Problem(where, member, "is a directive, which this program doesn't know", remedy)
            yield from _directives(where, member)


async def patch(store: Store, meant: One, given: Document, say: Callable[[str], None]) -> None:
    """Patches an object. Raises NotFound, Refused, StoreError."""
    await _edit(store, meant, lambda value: patched(meant.kind, value, given))
    say(f"Successfully patched 1 '{meant.kind.kind}' resource")


async def label(
    store: Store, meant: One, word: str, *, overwrite: bool, remove: bool, shown: str, say: Callable[[str], None]
) -> None:  # fmt: skip
    """Sets a label (`key=value`), or removes one (`key`). `shown`: how the user named the object. Raises Failure for a
    label that is there already, with another value, or isn't there to be removed; NotFound, Refused, StoreError."""
    key, equals, value = word.partition("=")
    if overwrite and remove:
        raise Failure("label", "--overwrite and --remove contradict each other", "give one of them")
    if not key or bool(equals) == remove:
        form = "key, to remove it" if remove else "key=value, or key and --remove"
        raise Failure("label", "can't be understood", f"write {form}", value=word)
    was_there = False

    def change(old: Whole) -> Whole:
        nonlocal was_there
        labels = dict(old.metadata.labels)
        was_there = key in labels
        if remove:
            if key not in labels:
                raise Failure(f"label of {shown}", "is not there", "see `get -o yaml` for those that are", value=key)
            del labels[key]
        elif labels.setdefault(key, value) != value:
            if not overwrite:
                reason = f"is there already, and its value is {labels[key]!r}"
                raise Failure(f"label of {shown}", reason, "give --overwrite to put another in its place", value=key)
            labels[key] = value
        return msgspec.structs.replace(old, metadata=msgspec.structs.replace(old.metadata, labels=labels))

    await _edit(store, meant, change)
    done, where = ("removed", "from") if remove else ("updated", "on") if was_there else ("set", "on")
    say(f"Successfully {done} label {key} {where} {shown}")


async def _edit(store: Store, meant: One, change: Callable[[Whole], Whole]) -> None:
    kind = whole(meant.kind)
    for last in (False,) * (_MOST_TRIES - 1) + (True,):
        stored = await find(store, meant.kind, meant.name, meant.namespace)
        after = change(stored.value)
        _check_metadata(meant.kind, stored.value, after)
        accept_change(kind, stored.value, after)
        await _check_tier(store, meant.kind, after)
        try:
            await store.update(kind, stored, after)
            return
        except Conflict as error:
            # Somebody was quicker: read again, change again.
            if last:
                raise error


def _check_metadata(kind: Kind[Any], old: Whole, new: Whole) -> None:
    """Raises Refused for what is wrong with labels and annotations, and wasn't before."""
    already = set(map(str, metadata_problems(old.metadata)))
    if fresh := [problem for problem in metadata_problems(new.metadata) if str(problem) not in already]:
        raise Refused(str(kind.key(new)), fresh)


async def _check_tier(store: Store, kind: Kind[Any], value: Whole) -> None:
    """Raises Refused where a policy's tier doesn't exist."""
    tier = tier_of(kind, value)
    if tier is None:
        return
    known = await known_tiers(store, [Wanted("", kind, value)])
    if problems := tuple(tier_problems(tier, known)):
        raise Refused(str(kind.key(value)), problems)
