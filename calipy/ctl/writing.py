"""`apply`, `create`, `replace`, `delete`: everything is checked first, and nothing is written if anything is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from calipy.console.failures import Failures
from calipy.ctl.documents import Wanted
from calipy.ctl.finding import find
from calipy.ctl.policies import tier_of, tier_problems
from calipy.ctl.tiers import known_tiers, needed_tiers
from calipy.ctl.whole import Whole, WholeMeta, others, typed, whole
from calipy.datastore.lifecycles import accept_change
from calipy.datastore.patches import merge
from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.resources import ip_pools
from calipy.resources.ip_pools import IPPool, overlap_problems
from calipy.resources.metadata import Key, Kind, Problem, Refused, accept

Verb = Literal["apply", "create", "replace"]
_MOST_TRIES = 5
"""So often a write is tried that loses against another writer."""


class Doomed(Struct, frozen=True, gc=False):
    """An object to delete."""

    kind: Kind[Any]
    key: Key


async def write(
    store: Store, verb: Verb, objects: Sequence[Wanted], say: Callable[[str], None], *, skip_exists: bool = False
) -> None:
    """Writes all objects, with `skip_exists` those that don't exist; says of each what became of it. Raises Failures,
    before any is written, with what is wrong with each; StoreError where a write fails."""
    if skip_exists:
        objects = [wanted for wanted in objects if await _is_missing(store, wanted, say)]
    await _check(store, verb, objects)
    for wanted in objects:
        say(f"{wanted.kind.key(wanted.value)} {await _written(store, verb, wanted)}")


async def delete(
    store: Store, doomed: Sequence[Doomed], say: Callable[[str], None], *, ignore_not_found: bool
) -> None:  # fmt: skip
    """Deletes all objects. Raises Failures, before any is deleted, if one doesn't exist or is needed."""
    missing: list[Exception] = []
    found: list[Doomed] = []
    for each in doomed:
        try:
            stored = await find(store, each.kind, each.key.name, each.key.namespace)
            found.append(Doomed(each.kind, stored.key))
        except NotFound as error:
            missing.append(error)
            found.append(each)
    needed = await needed_tiers(store, [each.key for each in found])
    if needed or (missing and not ignore_not_found):
        raise Failures([*needed, *([] if ignore_not_found else missing)])
    for each in found:
        say(f"{each.key} {await _deleted(store, each)}")


async def _is_missing(store: Store, wanted: Wanted, say: Callable[[str], None]) -> bool:
    if await _stored(store, wanted) is None:
        return True
    say(f"{wanted.kind.key(wanted.value)} exists")
    return False


async def _check(store: Store, verb: Verb, objects: Sequence[Wanted]) -> None:
    wrong: list[Exception] = []
    first: dict[Key, str] = {}
    tiers = await known_tiers(store, objects)
    fresh_pools: list[IPPool] = []
    for wanted in objects:
        key = wanted.kind.key(wanted.value)
        stored = await _stored(store, wanted)
        try:
            _check_one(verb, wanted, stored)
            _check_tier(wanted, tiers)
            if key in first:
                raise _refused(wanted, "the object", str(key), f"stands in {first[key]} too", "keep one of them")
            if wanted.kind is ip_pools.KIND and stored is None:
                pool = typed(wanted.kind, wanted.value)
                fresh_pools.append(pool)
                await _check_overlap(store, wanted, pool, fresh_pools)
        except Refused as refused:
            wrong.append(refused)
        first.setdefault(key, wanted.where)
    if wrong:
        raise Failures(wrong)


def _check_tier(wanted: Wanted, known: frozenset[str]) -> None:
    """Raises Refused where a policy's tier doesn't exist, as Calico's client does."""
    tier = tier_of(wanted.kind, wanted.value)
    if tier is not None and (problems := tuple(tier_problems(tier, known))):
        raise Refused(wanted.label, problems)


def _refused(wanted: Wanted, field: str, value: object, reason: str, remedy: str) -> Refused:
    return Refused(wanted.label, [Problem(field, value, reason, remedy)])


def _check_one(verb: Verb, wanted: Wanted, stored: Stored[Whole] | None) -> None:
    """Raises Refused where the object can't be written as things are."""
    kind = whole(wanted.kind)
    name = wanted.value.metadata.name
    if verb == "create" and stored is not None:
        raise _refused(wanted, "metadata.name", name, "exists already", "use apply or replace, or another name")
    if verb == "replace" and stored is None:
        raise _refused(wanted, "metadata.name", name, "does not exist", "use apply or create")
    try:
        if stored is None:
            accept(kind, wanted.value)
        else:
            _check_precondition(wanted, stored)
            accept_change(kind, stored.value, _changed(verb, wanted, stored.value))
    except Refused as refused:
        raise Refused(wanted.label, refused.problems) from refused


def _check_precondition(wanted: Wanted, stored: Stored[Whole]) -> None:
    """An object that was read, edited and given back carries the version it was read at."""
    revision, uid = wanted.value.metadata.resource_version, wanted.value.metadata.uid
    if revision and revision != stored.value.metadata.resource_version:
        reason = f"is not the newest, {stored.value.metadata.resource_version}: somebody has changed it since"
        raise _refused(wanted, "metadata.resourceVersion", revision, reason, "get it again, or leave this field out")
    if uid and uid != stored.uid:
        reason = f"is not its uid, {stored.uid}: it has been deleted and made anew"
        raise _refused(wanted, "metadata.uid", uid, reason, "get it again, or leave this field out")


async def _check_overlap(store: Store, wanted: Wanted, pool: IPPool, fresh: Sequence[IPPool]) -> None:
    others = list(fresh)
    async for page in store.list(ip_pools.KIND):
        others += [stored.value for stored in page.items]
    problems = tuple(overlap_problems(pool, others))
    if problems:
        raise Refused(wanted.label, problems)


async def _stored(store: Store, wanted: Wanted) -> Stored[Whole] | None:
    metadata = wanted.value.metadata
    try:
        return await store.get(whole(wanted.kind), metadata.name, metadata.namespace)
    except NotFound:
        return None


async def _written(store: Store, verb: Verb, wanted: Wanted) -> str:
    kind = whole(wanted.kind)
    for last in (False,) * (_MOST_TRIES - 1) + (True,):
        stored = await _stored(store, wanted)
        try:
            if stored is None:
                await store.create(kind, _new(wanted.value))
                return "created"
            if verb == "create":
                raise Exists(f"{stored.key} has been made meanwhile; use apply or replace")
            _check_precondition(wanted, stored)
            after = await store.update(kind, stored, _changed(verb, wanted, stored.value))
            if after.revision == stored.revision:
                return "unchanged"
            return "replaced" if verb == "replace" else "configured"
        except (Conflict, Exists, NotFound) as error:
            # Somebody was quicker: read again, merge again.
            if last or verb == "create":
                raise error
    raise AssertionError("the last try returns or raises")


def _new(value: Whole) -> Whole:
    """Without status: that is its controllers'."""
    return msgspec.structs.replace(value, status=UNSET)


def _changed(verb: Verb, wanted: Wanted, old: Whole) -> Whole:
    """The stored object as it is to be: what is given, `spec` above all, in place of the old; for `apply`, labels and
    annotations that others have put there stay. Of a kind of the core group, whose objects have many authors, `apply`
    sets the fields that are given and leaves the rest."""
    given = wanted.value
    parts: dict[str, Any] = {"metadata": _metadata(verb, given.metadata, old.metadata)}
    for name in ("spec", *others(type(given))):
        part = getattr(given, name)
        if part is UNSET or (verb == "apply" and not wanted.kind.group):
            part = _merged(getattr(old, name), part)
        parts[name] = part
    return msgspec.structs.replace(old, **parts)


def _metadata(verb: Verb, given: WholeMeta, old: WholeMeta) -> WholeMeta:
    apply = verb == "apply"
    return msgspec.structs.replace(
        old,
        labels={**old.labels, **given.labels} if apply else given.labels,
        annotations={**old.annotations, **given.annotations} if apply else given.annotations,
        finalizers=given.finalizers or old.finalizers,
        owner_references=given.owner_references or old.owner_references,
    )


def _merged(old: object, given: object) -> object:
    return old if given is UNSET else merge({} if old is UNSET else old, given)


async def _deleted(store: Store, doomed: Doomed) -> str:
    kind = whole(doomed.kind)
    note = ""
    if doomed.kind is ip_pools.KIND:
        from calipy.ctl.pools import retire

        try:
            in_use = await retire(store, doomed.key.name)
        except NotFound:
            return "not found"
        note = f"; {in_use} of its blocks are in use, and go with their last address" if in_use else ""
    for last in (False,) * (_MOST_TRIES - 1) + (True,):
        try:
            stored = await store.get(kind, doomed.key.name, doomed.key.namespace)
            await store.delete(kind, stored)
        except NotFound:
            return "not found"
        except Conflict as error:
            if last:
                raise error
        else:
            return ("marked for deletion" if stored.value.metadata.finalizers else "deleted") + note
    raise AssertionError("the last try returns or raises")
