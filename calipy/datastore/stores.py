"""The protocol that every store keeps, and the values and errors that pass through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Generic, Literal, Protocol, TypeVar

from msgspec import Struct

from calipy.resources.metadata import Key, Kind, Resource

R = TypeVar("R", bound=Resource)


class Stored(Struct, Generic[R], frozen=True, gc=False, kw_only=True):
    """A resource as some store holds it."""

    key: Key
    uid: str
    revision: int
    """Grows with every write to the store; the value's resourceVersion."""
    value: R


class Page(Struct, Generic[R], frozen=True, gc=False, kw_only=True):
    """A part of a list. `revision` is that of the whole list: a watch goes on from it."""

    items: tuple[Stored[R], ...]
    revision: int


class Event(Struct, Generic[R], frozen=True, gc=False, kw_only=True):
    """One change seen by a watch. A bookmark only advances the revision and has no object.
    For `deleted` the object is the last one seen."""

    type: Literal["put", "deleted", "bookmark"]
    revision: int
    object: Stored[R] | None = None


class StoreError(Exception):
    """A store's answer that isn't the one asked for. The message names the object and says what to do."""


class NotFound(StoreError):
    """There is no such object."""


class Exists(StoreError):
    """`create` found an object of that key."""


class Conflict(StoreError):
    """The object has changed since it was read: read again, decide again."""


class Expired(StoreError):
    """A watch can't go on from that revision (HTTP 410 Gone): list again."""


class Unauthorized(StoreError):
    """The store knows us not, or forbids it."""


class Unavailable(StoreError):
    """The store can't be reached, is locked, full or broken; try again later."""


class Store(Protocol):
    """A store of resources. Every method raises Unavailable or Unauthorized besides what it names."""

    async def get(self, kind: Kind[R], name: str, namespace: str = "") -> Stored[R]:
        """The object; raises NotFound."""
        ...

    def list(
        self, kind: Kind[R], *, namespace: str = "", labels: Mapping[str, str] | None = None, page_size: int = 500
    ) -> AsyncIterator[Page[R]]:
        """All objects of a kind (of one namespace, with all these labels), in pages; at least one page, perhaps empty.
        An object that can't be decoded is left out and logged with its key and reason."""
        ...

    def watch(self, kind: Kind[R], since: int) -> AsyncIterator[Event[R]]:
        """The changes after revision `since`, in order, without end; raises Expired."""
        ...

    async def create(self, kind: Kind[R], value: R) -> Stored[R]:
        """Stores a new object (uid, resourceVersion, creationTimestamp are the store's); raises Exists."""
        ...

    async def update(self, kind: Kind[R], old: Stored[R], new: R) -> Stored[R]:
        """Writes the difference between `old.value` and `new` if the object is still at `old.revision`, as a JSON merge
        patch (RFC 7386): a field unknown to us survives. Raises Conflict, NotFound."""
        ...

    async def delete(self, kind: Kind[R], old: Stored[R]) -> None:
        """Deletes the object if it is still `old` (uid and revision); raises Conflict, NotFound."""
        ...

    @property
    def unreadable(self) -> Mapping[Key, str]:
        """Objects that listings and watches have left out because they can't be decoded, and why. A live view."""
        ...

    async def close(self) -> None:
        """Lets go of files and connections."""
        ...
