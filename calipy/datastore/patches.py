"""JSON merge patches (RFC 7386): the difference of two values, and how it lands on a third that may know more fields.

Values are JSON builtins: dict, list, str, int, float, bool, None. RFC 7386 spends null on "remove", so an object's
member can't be set to null: a null member counts as an absent one. Lists are replaced whole (RFC 7386 section 1).
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from calipy.resources.metadata import Kind, R


def difference(old: object, new: object) -> object:
    """The smallest patch that makes `new` of `old`; `{}` when two objects are equal.
    Law: merge(old, difference(old, new)) == new, for values whose objects have no null members."""
    before, after = msgspec.json.encode(old), msgspec.json.encode(new)
    both = before.startswith(b"{") and after.startswith(b"{")
    return _between(before, after) if both else msgspec.json.decode(after)


def _between(old: bytes, new: bytes) -> dict[str, object]:
    """Of two objects' texts. What reads alike is not taken apart, and that is most of it; as texts 1, 1.0 and true
    differ, which Python calls equal."""
    before, after = _MEMBERS.decode(old), _MEMBERS.decode(new)
    patch: dict[str, object] = {name: None for name in before if name not in after}
    for name, value in after.items():
        was, is_ = bytes(before.get(name, b"")), bytes(value)
        if was == is_:
            continue
        if was.startswith(b"{") and is_.startswith(b"{"):
            patch |= {name: inner} if (inner := _between(was, is_)) else {}
        else:
            patch[name] = msgspec.json.decode(is_)
    return patch


def merge(target: object, patch: object) -> object:
    """`target` with `patch` applied (RFC 7386 section 2, MergePatch); neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def encode_patch(kind: Kind[R], old: R, new: R) -> dict[str, object]:
    """The patch between two resources of `kind`. A field that is at its default is left out by the encoder, so
    setting one back to its default removes it from the stored text."""
    if not (isinstance(old, kind.type) and isinstance(new, kind.type)):
        raise TypeError(f"a patch of {kind.name} needs two of them, not {type(old).__name__}, {type(new).__name__}")
    patch = difference(old, new)
    assert isinstance(patch, dict)  # both are objects
    return patch


def document(value: R) -> dict[str, object]:
    """A resource as JSON builtins. (msgspec.to_builtins refuses Raw fields; by way of text they work.)"""
    return msgspec.json.decode(msgspec.json.encode(value), type=dict[str, object])


_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
