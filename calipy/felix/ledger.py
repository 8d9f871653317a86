"""The ledger of one driver's kernel objects: what is wanted, what is there, and the operations in between.

Pure. The only place that orders operations. An object may have several owners (a shared set) as long as they want the
same value; it goes when the last one lets go. The members of a set that has one owner are kept as a whole, by what is
missing and what is too much: a set of many addresses costs no more than its addresses.

A node's start is thousands of objects. So an object is one entry, and its fingerprint is made when something that was
read is to be compared with it, not before: what we write ourselves is known by its value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain
from operator import itemgetter

from msgspec import Struct

from calipy.felix.calc.change import SetDelta
from calipy.felix.objects import Alter, Delete, Found, Members, ObjectName, Objects, Op, Owner, Put

LEFTOVER = Owner("leftover", "")
"""Owner of objects found in the kernel that nobody wants: of a pod deleted while the agent was away, say."""


class Contradiction(ValueError):
    """Two owners want different values under one name: a mistake in a compiler, never in user input."""


class _Entry(Struct, gc=False):
    """An object: what is wanted, who wants it, what is there."""

    value: Struct | None
    """None: nobody wants it."""
    owners: tuple[Owner, ...]
    """Who wants it, or wanted it last."""
    actual: Struct | bytes | None = None
    """What the kernel holds: the value where that is known, else the fingerprint that was read; None: nothing."""
    fingerprint: bytes = b""
    """The value's; empty until it is asked for."""

    def op(self, name: ObjectName, held: Container[Owner]) -> Op | None:
        """What leads to what is wanted; None where all who say so are on hold."""
        owners = self.owners
        if held:
            owners = tuple(owner for owner in owners if owner not in held)
            if not owners:
                return None
        owner = owners[0] if len(owners) == 1 else min(owners)
        return Delete(owner, name) if self.value is None else Put(owner, name, self.value, self.actual is not None)


class _Crowd:
    """Members of a set: those wanted, and how the kernel differs from them."""

    __slots__ = ("extra", "missing", "owner", "wanted", "wanting")

    def __init__(self) -> None:
        self.owner = LEFTOVER
        """Who wants them, or wanted them last."""
        self.wanting = False
        """True if someone does."""
        self.wanted: frozenset[str] = frozenset()
        self.missing: set[str] = set()
        self.extra: set[str] = set()

    def want(self, keys: frozenset[str], moved: SetDelta | None) -> None:
        """Other members are wanted; `moved` tells in which way, where that is known."""
        if moved is None:
            actual = (self.wanted - self.missing) | self.extra
            self.missing, self.extra = set(keys - actual), set(actual - keys)
        else:
            for key in moved.added - self.wanted:
                self._flip(key, self.extra, self.missing)
            for key in moved.removed & self.wanted:
                self._flip(key, self.missing, self.extra)
        self.wanted = keys

    def land(self, added: frozenset[str], removed: frozenset[str]) -> None:
        """The kernel has taken these in and out; what is wanted may have moved since they were sent."""
        for key in added:
            if key in self.missing:
                self.missing.remove(key)
            elif key not in self.wanted:
                self.extra.add(key)
        for key in removed:
            if key in self.extra:
                self.extra.remove(key)
            elif key in self.wanted:
                self.missing.add(key)

    def op(self, name: ObjectName, held: Container[Owner]) -> Op | None:
        """As of an entry."""
        if self.owner in held:
            return None
        return Alter(self.owner, name, frozenset(self.missing), frozenset(self.extra))

    @staticmethod
    def _flip(key: str, out_of: set[str], into: set[str]) -> None:
        if key in out_of:
            out_of.remove(key)
        else:
            into.add(key)


class Wanted(Mapping[ObjectName, Struct]):
    """All that is wanted of a ledger, whoever wants it: a live view."""

    def __init__(self, entries: Mapping[ObjectName, _Entry], crowds: Mapping[ObjectName, _Crowd]) -> None:
        self._entries = entries
        self._crowds = crowds

    def __getitem__(self, name: ObjectName) -> Struct:
        entry = self._entries.get(name)
        if entry is None:
            return Members(self._crowds[name].wanted)
        if entry.value is None:
            raise KeyError(name)
        return entry.value

    def __iter__(self) -> Iterator[ObjectName]:
        yield from (name for name, entry in self._entries.items() if entry.value is not None)
        yield from self._crowds

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Ledger:
    """Desired against actual, for one driver."""

    def __init__(self, fingerprint: Callable[[Struct], bytes], order: Callable[[str, bool], int]) -> None:
        """Both are the driver's."""
        self._fingerprint = fingerprint
        self._order = order
        self._entries: dict[ObjectName, _Entry] = {}
        self._crowds: dict[ObjectName, _Crowd] = {}
        self._owned: dict[Owner, Objects] = {}
        self._differing: dict[ObjectName, _Entry | _Crowd] = {}
        self._held: dict[Owner, str] = {}
        self.wanted = Wanted(self._entries, self._crowds)

    def want(self, owner: Owner, objects: Objects | None, moved: Mapping[ObjectName, SetDelta] = {}) -> None:
        """Replaces all that `owner` wants; None = nothing any more. `moved` says of members what came and went since
        the owner's last want, where the caller knows: then it costs no more than that."""
        before = self._owned.pop(owner, None)
        if objects:
            self._owned[owner] = objects
        else:
            objects = {}
        for name in before or ():
            if name not in objects:
                self._let_go(owner, name)
        entries, owners = self._entries, (owner,)
        for name, value in objects.items():
            if type(value) is Members:
                self._claim_members(owner, name, value, moved.get(name))
            elif name not in entries:
                entries[name] = self._differing[name] = _Entry(value, owners)
            elif before is None or before.get(name) is not value:
                self._claim(owner, entries[name], name, value)

    def fingerprints(self, found: Found) -> Iterator[None]:
        """Makes the fingerprints that `found` will compare with these, one a step: thousands of them take a while."""
        for name in found:
            entry = self._entries.get(name)
            if entry is not None:
                self._print(entry)
            yield

    def found(self, actual: Found, leftover: Callable[[ObjectName], Owner] = lambda name: LEFTOVER) -> None:
        """The kernel has been read: `actual` is all that is there. `leftover` names the owner of what nobody wants."""
        crowds = {name: keys for name, keys in actual.items() if isinstance(keys, frozenset)}
        there = {name: found for name, found in actual.items() if isinstance(found, bytes)}
        touched = [(name, each) for name, each in self._entries.items() if each.actual is not None or name in there]
        for name, entry in touched:
            entry.actual = there.pop(name, None)
            if entry.value is None:
                entry.owners = (leftover(name),)
            self._settle(name, entry)
        for name, found in there.items():
            self._entries[name] = self._differing[name] = _Entry(None, (leftover(name),), found)
        for name in {**self._crowds, **crowds}:
            crowd, keys = self._crowds.setdefault(name, _Crowd()), crowds.get(name, frozenset())
            crowd.missing, crowd.extra = set(crowd.wanted - keys), set(keys - crowd.wanted)
            self._settle_members(name, crowd)

    def hold(self, owner: Owner, reason: str) -> None:
        """Operations of `owner` stay out of `pending` until `release`: the kernel refused them, or will."""
        self._held[owner] = reason

    def release(self, owner: Owner) -> None:
        """Ends a hold."""
        self._held.pop(owner, None)

    @property
    def held(self) -> Mapping[Owner, str]:
        """Owners on hold, and why."""
        return self._held

    @property
    def idle(self) -> bool:
        """True if no operation is pending."""
        return not any(differing.op(name, self._held) is not None for name, differing in self._differing.items())

    def pending(self) -> tuple[Op, ...]:
        """The operations that lead from what is there to what is wanted, in the order in which they are safe; of one
        kind in the order in which they came up."""
        held = self._held
        made: defaultdict[str, list[Op]] = defaultdict(list)
        gone: defaultdict[str, list[Op]] = defaultdict(list)
        for name, differing in self._differing.items():
            op = differing.op(name, held)
            if op is not None:
                (gone if type(op) is Delete else made)[name.kind].append(op)
        ranked = [(self._order(kind, ops is gone), ops[kind]) for ops in (made, gone) for kind in ops]
        return tuple(chain.from_iterable(ops for _, ops in sorted(ranked, key=itemgetter(0))))

    def landed(self, ops: Iterable[Op]) -> None:
        """The kernel has taken these."""
        for op in ops:
            name = op.name
            differing = self._differing.pop(name, None)
            if type(op) is Put and type(differing) is _Entry and differing.value is op.value:
                differing.actual = op.value
            elif isinstance(op, Alter):
                crowd = self._crowds.setdefault(name, _Crowd())
                crowd.land(op.added, op.removed)
                self._settle_members(name, crowd)
            else:
                entry = self._entries.setdefault(name, _Entry(None, (op.owner,)))
                entry.actual = op.value if isinstance(op, Put) else None
                self._settle(name, entry)

    def vanished(self, name: ObjectName) -> None:
        """Someone else, or the kernel itself, has removed an object."""
        entry = self._entries.get(name)
        if entry is not None:
            entry.actual = None
            self._settle(name, entry)

    def wants(self, name: ObjectName) -> bool:
        """True if someone wants the object and the kernel is believed to hold it."""
        entry = self._entries.get(name)
        return entry is not None and entry.value is not None and entry.actual is not None

    def settled(self, owner: Owner) -> bool:
        """True if the kernel holds exactly what `owner` wants."""
        differing = self._differing
        return owner not in self._held and not (differing and any(map(differing.__contains__, self.objects(owner))))

    def owners(self, name: ObjectName) -> frozenset[Owner]:
        """Who wants an object, or wanted it last."""
        entry = self._entries.get(name)
        if entry is not None:
            return frozenset(entry.owners)
        crowd = self._crowds.get(name)
        return frozenset({crowd.owner if crowd is not None else LEFTOVER})

    def objects(self, owner: Owner) -> Mapping[ObjectName, Struct]:
        """What `owner` wants."""
        return self._owned.get(owner, {})

    def __len__(self) -> int:
        return len(self.wanted)

    def _claim(self, owner: Owner, entry: _Entry, name: ObjectName, value: Struct) -> None:
        if entry.value is not None and entry.value == value:
            if owner not in entry.owners:
                entry.owners = (*entry.owners, owner)
            return
        if entry.value is not None and any(other != owner for other in entry.owners):
            raise Contradiction(f"{owner} and {sorted(entry.owners)} want different values of {name}")
        entry.value, entry.owners, entry.fingerprint = value, (owner,), b""
        self._settle(name, entry)

    def _claim_members(self, owner: Owner, name: ObjectName, value: Members, moved: SetDelta | None) -> None:
        crowd = self._crowds.setdefault(name, _Crowd())
        if crowd.wanting and crowd.owner != owner:
            raise Contradiction(f"{owner} and {crowd.owner} want members of {name}")
        if crowd.wanted is not value.keys:
            crowd.want(value.keys, moved if crowd.wanting else None)
        crowd.owner, crowd.wanting = owner, True
        self._settle_members(name, crowd)

    def _let_go(self, owner: Owner, name: ObjectName) -> None:
        entry = self._entries.get(name)
        if entry is None:
            self._let_members_go(owner, name)
            return
        others = tuple(other for other in entry.owners if other != owner)
        if others:
            entry.owners = others
        else:
            entry.value, entry.owners, entry.fingerprint = None, (owner,), b""
            self._settle(name, entry)

    def _let_members_go(self, owner: Owner, name: ObjectName) -> None:
        crowd = self._crowds.get(name)
        if crowd is not None and crowd.wanting and crowd.owner == owner:
            crowd.want(frozenset(), None)
            crowd.wanting = False
            self._settle_members(name, crowd)

    def _settle(self, name: ObjectName, entry: _Entry) -> None:
        """Notes whether an object is as wanted."""
        if type(entry.actual) is bytes and entry.value is not None and entry.actual == self._print(entry):
            entry.actual = entry.value
        if entry.actual is not entry.value and entry.actual != entry.value:
            self._differing[name] = entry
            return
        self._differing.pop(name, None)
        if entry.value is None:
            del self._entries[name]

    def _print(self, entry: _Entry) -> bytes:
        if not entry.fingerprint and entry.value is not None:
            entry.fingerprint = self._fingerprint(entry.value)
        return entry.fingerprint

    def _settle_members(self, name: ObjectName, crowd: _Crowd) -> None:
        if crowd.missing or crowd.extra:
            self._differing[name] = crowd
            return
        self._differing.pop(name, None)
        if not crowd.wanting:
            del self._crowds[name]
