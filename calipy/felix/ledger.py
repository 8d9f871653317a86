"""The ledger of one driver's kernel objects: what is wanted, what is there, and the operations in between.

Pure. The only place that orders operations. An object may have several owners (a shared set) as long as they want the
same value; it goes when the last one lets go. The members of a set that has one owner are kept as a whole, by what is
missing and what is too much: a set of many addresses costs no more than its addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from calipy.felix.calc.change import SetDelta
from calipy.felix.objects import Alter, Delete, Found, Members, ObjectName, Objects, Op, Owner, Put

LEFTOVER = Owner("leftover", "")
"""Owner of objects found in the kernel that nobody wants: of a pod deleted while the agent was away, say."""


class Contradiction(ValueError):
    """Two owners want different values under one name: a mistake in a compiler, never in user input."""


class _Wanted(Struct, gc=False):
    """A wanted value, its fingerprint and its owners."""

    value: Struct
    fingerprint: bytes
    owners: tuple[Owner, ...]


class _Crowd:
    """Members of a set: those wanted, and how the kernel differs from them."""

    __slots__ = ("extra", "missing", "owner", "wanted")

    def __init__(self) -> None:
        self.owner: Owner | None = None
        """None: nobody wants any."""
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

    @staticmethod
    def _flip(key: str, out_of: set[str], into: set[str]) -> None:
        if key in out_of:
            out_of.remove(key)
        else:
            into.add(key)


class Wanted(Mapping[ObjectName, Struct]):
    """All that is wanted of a ledger, whoever wants it: a live view."""

    def __init__(self, wanted: Mapping[ObjectName, _Wanted], crowds: Mapping[ObjectName, _Crowd]) -> None:
        self._wanted = wanted
        self._crowds = crowds

    def __getitem__(self, name: ObjectName) -> Struct:
        found = self._wanted.get(name)
        return found.value if found is not None else Members(self._crowds[name].wanted)

    def __iter__(self) -> Iterator[ObjectName]:
        yield from self._wanted
        yield from self._crowds

    def __len__(self) -> int:
        return len(self._wanted) + len(self._crowds)


class Ledger:
    """Desired against actual, for one driver."""

    def __init__(self, fingerprint: Callable[[Struct], bytes], order: Callable[[Op], int]) -> None:
        self._fingerprint = fingerprint
        self._order = order
        self._wanted: dict[ObjectName, _Wanted] = {}
        self._crowds: dict[ObjectName, _Crowd] = {}
        self._owned: dict[Owner, Objects] = {}
        self._actual: dict[ObjectName, bytes] = {}
        self._last_owner: dict[ObjectName, Owner] = {}
        self._differing: dict[ObjectName, None] = {}
        self._held: dict[Owner, str] = {}
        self.wanted = Wanted(self._wanted, self._crowds)

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
        for name, value in objects.items():
            if type(value) is Members:
                self._claim_members(owner, name, value, moved.get(name))
            elif before is None or before.get(name) is not value:
                self._claim(owner, name, value)

    def found(self, actual: Found, leftover: Callable[[ObjectName], Owner] = lambda name: LEFTOVER) -> None:
        """The kernel has been read: `actual` is all that is there. `leftover` names the owner of what nobody wants."""
        crowds = {name: keys for name, keys in actual.items() if isinstance(keys, frozenset)}
        self._actual = {name: found for name, found in actual.items() if isinstance(found, bytes)}
        self._last_owner = {name: leftover(name) for name in self._actual if name not in self._wanted}
        there, wanted = self._actual, self._wanted
        differing = [name for name, value in wanted.items() if there.get(name) != value.fingerprint]
        differing += [name for name in there if name not in wanted]
        self._differing = dict.fromkeys(differing)
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
        return not any(self._op(name) is not None for name in self._differing)

    def pending(self) -> tuple[Op, ...]:
        """The operations that lead from what is there to what is wanted, in the order in which they are safe; of one
        rank in the order in which they came up."""
        ops = [op for name in self._differing if (op := self._op(name)) is not None]
        ops.sort(key=self._order)
        return tuple(ops)

    def landed(self, ops: Iterable[Op]) -> None:
        """The kernel has taken these."""
        for op in ops:
            name = op.name
            if isinstance(op, Put):
                wanted = self._wanted.get(name)
                if wanted is not None and wanted.value is op.value:
                    self._actual[name] = wanted.fingerprint
                    self._differing.pop(name, None)
                    continue
                self._actual[name] = self._fingerprint(op.value)
            elif isinstance(op, Alter):
                crowd = self._crowds.setdefault(name, _Crowd())
                crowd.land(op.added, op.removed)
                self._settle_members(name, crowd)
                continue
            else:
                self._actual.pop(name, None)
            self._settle(name)

    def vanished(self, name: ObjectName) -> None:
        """Someone else, or the kernel itself, has removed an object."""
        self._actual.pop(name, None)
        self._settle(name)

    def wants(self, name: ObjectName) -> bool:
        """True if someone wants the object and the kernel is believed to hold it."""
        return name in self._wanted and name in self._actual

    def settled(self, owner: Owner) -> bool:
        """True if the kernel holds exactly what `owner` wants."""
        return owner not in self._held and not any(name in self._differing for name in self._owned.get(owner, ()))

    def owners(self, name: ObjectName) -> frozenset[Owner]:
        """Who wants an object, or wanted it last."""
        wanted = self._wanted.get(name)
        if wanted is not None:
            return frozenset(wanted.owners)
        crowd = self._crowds.get(name)
        if crowd is not None and crowd.owner is not None:
            return frozenset({crowd.owner})
        return frozenset({self._last_owner.get(name, LEFTOVER)})

    def objects(self, owner: Owner) -> Mapping[ObjectName, Struct]:
        """What `owner` wants."""
        return self._owned.get(owner, {})

    def __len__(self) -> int:
        return len(self._wanted) + len(self._crowds)

    def _claim(self, owner: Owner, name: ObjectName, value: Struct) -> None:
        wanted = self._wanted.get(name)
        if wanted is None or wanted.value != value:
            if wanted is not None and any(other != owner for other in wanted.owners):
                raise Contradiction(f"{owner} and {sorted(wanted.owners)} want different values of {name}")
            fingerprint = self._fingerprint(value)
            self._wanted[name] = _Wanted(value, fingerprint, (owner,))
            if self._actual.get(name) != fingerprint:
                self._differing[name] = None
            else:
                self._differing.pop(name, None)
        elif owner not in wanted.owners:
            wanted.owners = (*wanted.owners, owner)

    def _claim_members(self, owner: Owner, name: ObjectName, value: Members, moved: SetDelta | None) -> None:
        crowd = self._crowds.setdefault(name, _Crowd())
        if crowd.owner not in (None, owner):
            raise Contradiction(f"{owner} and {crowd.owner} want members of {name}")
        if crowd.wanted is not value.keys:
            crowd.want(value.keys, moved if crowd.owner is not None else None)
        crowd.owner = owner
        self._settle_members(name, crowd)

    def _let_go(self, owner: Owner, name: ObjectName) -> None:
        wanted = self._wanted.get(name)
        if wanted is None:
            self._let_members_go(owner, name)
            return
        wanted.owners = tuple(other for other in wanted.owners if other != owner)
        if not wanted.owners:
            del self._wanted[name]
            if name in self._actual:
                self._last_owner[name] = owner
        self._settle(name)

    def _let_members_go(self, owner: Owner, name: ObjectName) -> None:
        crowd = self._crowds.get(name)
        if crowd is not None and crowd.owner == owner:
            crowd.want(frozenset(), None)
            crowd.owner = None
            self._last_owner[name] = owner
            self._settle_members(name, crowd)

    def _settle(self, name: ObjectName) -> None:
        wanted = self._wanted.get(name)
        if self._actual.get(name) != (wanted.fingerprint if wanted is not None else None):
            self._differing[name] = None
        else:
            self._differing.pop(name, None)
            if name not in self._actual:
                self._last_owner.pop(name, None)

    def _settle_members(self, name: ObjectName, crowd: _Crowd) -> None:
        if crowd.missing or crowd.extra:
            self._differing[name] = None
            return
        self._differing.pop(name, None)
        if crowd.owner is None:
            del self._crowds[name]
            self._last_owner.pop(name, None)

    def _op(self, name: ObjectName) -> Op | None:
        wanted = self._wanted.get(name)
        if wanted is not None:
            owners = wanted.owners
            if self._held:
                owners = tuple(owner for owner in owners if owner not in self._held)
            if not owners:
                return None
            owner = owners[0] if len(owners) == 1 else min(owners)
            return Put(owner, name, wanted.value, name in self._actual)
        crowd = self._crowds.get(name)
        owner = self._last_owner.get(name, LEFTOVER) if crowd is None or crowd.owner is None else crowd.owner
        if owner in self._held:
            return None
        if crowd is None:
            return Delete(owner, name)
        return Alter(owner, name, frozenset(crowd.missing), frozenset(crowd.extra))
