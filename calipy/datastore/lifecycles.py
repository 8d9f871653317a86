"""What an API server does to an object's metadata at its birth, change and death. Pure: JSON documents in and out.

The fields named in SERVER_OWNED are the server's; what a client sends in them is passed over (Kubernetes API
conventions, "Metadata").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from calipy.datastore.patches import merge
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, R, Refused, name_problems

Document = dict[str, object]

SERVER_OWNED = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")


def metadata_of(document: Mapping[str, object]) -> Document:
    """The metadata of a document, {} if it has none."""
    return cast(Document, document.get("metadata") or {})


def check_metadata(kind: Kind[R], value: R) -> None:
    """Raises Refused unless the object has a name, and a namespace exactly if its kind has them, and labels and
    annotations that the API takes."""
    problems = (*name_problems(kind, value.metadata), *metadata_problems(value.metadata))
    if problems:
        raise Refused(str(kind.key(value)), problems)


def accept_change(kind: Kind[R], old: R, new: R) -> None:
    """Raises Refused for what is wrong with `new` and wasn't with `old`: an object that was let in before a rule was
    made, or by somebody else, can still be labelled or freed of a finalizer (Kubernetes' validation ratcheting).
    What can't change at all is always wrong."""
    unchangeable = tuple(kind.changes(old, new))
    if unchangeable:
        raise Refused(str(kind.key(new)), unchangeable)
    wrong = tuple(kind.problems(new))
    if wrong:
        already = {str(problem) for problem in kind.problems(old)}
        fresh = [problem for problem in wrong if str(problem) not in already]
        if fresh:
            raise Refused(str(kind.key(new)), fresh)


def born(document: Document, *, uid: str, at: str) -> Document:
    """A new object: generation 1, the server's uid and creation time (RFC 3339)."""
    sent = {name: value for name, value in metadata_of(document).items() if name not in SERVER_OWNED}
    return {**document, "metadata": {**sent, "uid": uid, "creationTimestamp": at, "generation": 1}}


def changed(what: str, stored: Document, patch: Document) -> Document:
    """`stored` with the client's `patch`. generation grows when anything but metadata and status changes.
    Equal to `stored` when nothing changes. Raises Refused when the patch renames the object, or gives a new
    finalizer to one that is being deleted."""
    allowed = sent_by_client(patch)
    after = cast(Document, merge(stored, allowed))
    refuse_rename(what, metadata_of(stored), metadata_of(after))
    _refuse_new_finalizers(what, stored, after)
    if _body(after) != _body(stored):
        return _with_metadata(after, generation=_generation(stored) + 1)
    return after


def dying(stored: Document, *, at: str) -> Document:
    """An object whose deletion is asked for while it has finalizers: marked, kept. As Kubernetes does, the mark
    counts as a change of generation; a second deletion changes nothing."""
    if metadata_of(stored).get("deletionTimestamp"):
        return stored
    generation = _generation(stored) + 1
    return _with_metadata(stored, deletionTimestamp=at, deletionGracePeriodSeconds=0, generation=generation)


def held(document: Document) -> bool:
    """True while a finalizer keeps the object from going."""
    return bool(metadata_of(document).get("finalizers"))


def gone(document: Document) -> bool:
    """True once a deletion has been asked for and no finalizer is left."""
    return bool(metadata_of(document).get("deletionTimestamp")) and not held(document)


def at_revision(document: Document, revision: int) -> Document:
    """The document with its resourceVersion."""
    return _with_metadata(document, resourceVersion=str(revision))


def _with_metadata(document: Document, **fields: object) -> Document:
    return {**document, "metadata": {**metadata_of(document), **fields}}


def _generation(document: Document) -> int:
    generation = metadata_of(document).get("generation")
    return generation if isinstance(generation, int) else 0


def _body(document: Document) -> Document:
    return {name: value for name, value in document.items() if name not in ("metadata", "status")}


def sent_by_client(patch: Document) -> Document:
    """A document or patch without the fields that are the server's."""
    meta = patch.get("metadata")
    if not isinstance(meta, dict):
        return patch
    return {**patch, "metadata": {name: value for name, value in meta.items() if name not in SERVER_OWNED}}


def refuse_rename(what: str, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raises Refused where metadata `now` has another name or namespace than before."""
    problems = [
        Problem(f"metadata.{field}", now.get(field), f"was {before.get(field)!r} and can't change", "make a new object")
        for field in ("name", "namespace")
        if before.get(field) != now.get(field)
    ]
    if problems:
        raise Refused(what, problems)


def _refuse_new_finalizers(what: str, stored: Document, after: Document) -> None:
    before, now = metadata_of(stored), metadata_of(after)
    if not before.get("deletionTimestamp"):
        return
    fresh = sorted(
        set(cast(list[str], now.get("finalizers") or [])) - set(cast(list[str], before.get("finalizers") or []))
    )
    if fresh:
        reason = "can't be added to an object that is being deleted"
        raise Refused(what, [Problem("metadata.finalizers", fresh, reason, "wait until it is gone")])
