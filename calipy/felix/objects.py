"""Kernel objects, their owners, and the operations that change them: the words between ledger and drivers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec
from msgspec import Struct


class Owner(Struct, frozen=True, gc=False, order=True, cache_hash=True):
    """Who answers for a kernel object: ("endpoint", "k8s/default/web/eth0"), ("static", ""), ("set", "id/4"),
    ("route", "254/10.244.1.0/26/1024"), ("tunnel", "vxlan.calico")."""

    kind: str
    name: str


class ObjectName(Struct, frozen=True, gc=False, order=True, cache_hash=True):
    """What a driver calls a kernel object: its class (chain, set, element, route, device, neighbour, ...) and its name
    within that class."""

    kind: str
    name: str


Objects = Mapping[ObjectName, Struct]
"""All that one owner wants in the kernel."""


class Members(Struct, frozen=True, gc=False):
    """All members of a set that has one owner: canonical addresses or CIDRs. They are one object, named after the set,
    and written by what came and went."""

    keys: frozenset[str]


def fingerprint(value: Struct) -> bytes:
    """8 bytes that tell two neutral values apart; kept in the kernel where an object has room for user data."""
    return hashlib.blake2b(msgspec.msgpack.encode(value), digest_size=8).digest()


class Put(Struct, frozen=True, gc=False):
    """Create or replace an object. `replaces` tells that the kernel holds another value under that name."""

    owner: Owner
    name: ObjectName
    value: Struct
    replaces: bool = False


class Delete(Struct, frozen=True, gc=False):
    """Remove an object; that it is gone already counts as done."""

    owner: Owner
    name: ObjectName


class Alter(Struct, frozen=True, gc=False):
    """Members of a set that come and go."""

    owner: Owner
    name: ObjectName
    added: frozenset[str]
    removed: frozenset[str]


Op = Put | Delete | Alter

Found = Mapping[ObjectName, bytes | frozenset[str]]
"""What a driver has read: an object's fingerprint, or a set's members."""


class Refusal(Struct, frozen=True, gc=False):
    """The kernel's no to one operation: which object, why (errno and its text)."""

    name: ObjectName
    errno: int
    reason: str


class Outcome(Struct, frozen=True, gc=False, kw_only=True):
    """What became of a list of operations. Where `refusals` is not empty and the driver is transactional, nothing has
    landed. `resync` asks for a fresh read: the kernel's answer named no operation, or its state was not as believed."""

    refusals: tuple[Refusal, ...] = ()
    resync: str = ""
    vanished: tuple[ObjectName, ...] = ()
    """Objects that the operations took with them: entries of a device that was made anew."""


class Driver(Protocol):
    """One kind of kernel state. All that it reads and writes is this node's and ours."""

    name: str
    transactional: bool
    """True: `apply` is all or nothing."""

    def order(self, kind: str, gone: bool) -> int:
        """Rank of what makes or changes objects of a kind, or with `gone` deletes them; lower goes first."""
        ...

    def weight(self, op: Op) -> int:
        """How many messages it takes, about; one at least."""
        ...

    def fingerprint(self, value: Struct) -> bytes:
        """What `read` will give for `value` once it has landed."""
        ...

    def leftover(self, name: ObjectName) -> Owner:
        """Owner of an object that the last `read` found and nobody wants: a handle to hold its removal by."""
        ...

    def read(self) -> Iterator[Found | None]:
        """The kernel's objects of ours: yields None at slice points, at last the mapping."""
        ...

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        """Writes; never reads. Blocks for as long as the kernel works."""
        ...
