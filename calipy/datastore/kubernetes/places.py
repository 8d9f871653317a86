"""Where an API server has a kind, and how its objects are written there. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from calipy.datastore.lifecycles import Document
from calipy.datastore.patches import encode_patch
from calipy.resources.metadata import Kind, R


class Place(Struct, frozen=True, gc=False, kw_only=True):
    """Where a kind is in the API's paths."""

    group: str
    """"" for the core group."""
    version: str
    resource: str

    def name(self, name: str) -> str:
        """What an object is called there."""
        return name

    def inward(self, kind: Kind[Any], text: bytes) -> bytes:
        """An object's text from there, as `resources` knows it."""
        return text

    def outward(self, kind: Kind[Any], document: Document) -> Document:
        """An object as it is written there."""
        return document

    def patch(self, kind: Kind[R], old: R, new: R) -> Document:
        """The difference of two objects, as it is written there."""
        return encode_patch(kind, old, new)
