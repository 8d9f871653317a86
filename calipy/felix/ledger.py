"""The ledger of one driver's kernel objects: what is wanted, what is there, and the operations in between.

Pure. The only place that orders operations. An object may have several owners (a shared set) as long as they want the
same value; it goes when the last one lets go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from calipy.felix.objects import Delete, ObjectName, Objects, Op, Owner, Put

LEFTOVER = Owner("leftover", "")
"""Owner of objects found in the kernel that nobody wants: of a pod deleted while the agent was away, say."""


class Contradiction(ValueError):
    """Two owners want different values under one name: a mistake in a compiler, never in user input."""


class _Wanted:
    """A wanted value, its fingerprint and its owners."""

    __slots__ = ("fingerprint", "owners", "value")

    def __init__(self, value: Struct, fingerprint: bytes) -> None:
        self.value = value
        self.fingerprint = fingerprint
        self.owners: set[Owner] = set()


class Ledger:
    """Desired against actual, for one driver."""

    def __init__(self, fingerprint: Callable[[Struct], bytes], order: Callable[[Op], int]) -> None:
        self._fingerprint = fingerprint
        self._order = order
        self._wanted: dict[ObjectName, _Wanted] = {}
        self._owned: dict[Owner, set[ObjectName]] = {}
        self._actual: dict[ObjectName, bytes] = {}
        self._last_owner: dict[ObjectName, Owner] = {}
        self._differing: dict[ObjectName, None] = {}
        self._held: dict[Owner, str] = {}

    def want(self, owner: Owner, objects: Objects | None) -> None:
        """Replaces all that `owner` wants; None = nothing any more."""
        objects = objects or {}
        for name in self._owned.get(owner, set()) - objects.keys():
            self._let_go(owner, name)
        for name, value in objects.items():
            self._claim(owner, name, value)

    def amend(self, owner: Owner, added: Objects, removed: Iterable[ObjectName]) -> None:
        """Changes some of what `owner` wants and leaves the rest."""
        for name in removed:
            if name in self._owned.get(owner, set()):
                self._let_go(owner, name)
        for name, value in added.items():
            self._claim(owner, name, value)

    def found(
        self, actual: Mapping[ObjectName, bytes], leftover: Callable[[ObjectName], Owner] = lambda name: LEFTOVER
    ) -> None:
        """The kernel has been read: `actual` is all that is there. `leftover` names the owner of what nobody wants."""
        self._actual = dict(actual)
        self._last_owner = {name: leftover(name) for name in self._actual if name not in self._wanted}
        there, wanted = self._actual, self._wanted
        differing = [name for name, value in wanted.items() if there.get(name) != value.fingerprint]
        differing += [name for name in there if name not in wanted]
        self._differing = dict.fromkeys(differing)

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

    def pending(self) -> tuple[Op, ...]:
        """The operations that lead from what is there to what is wanted, in the order in which they are safe; of one
        rank in the order in which they came up."""
        ops = [op for name in self._differing if (op := self._op(name)) is not None]
        ops.sort(key=self._order)
        return tuple(ops)

    def landed(self, ops: Iterable[Op]) -> None:
        """The kernel has taken these."""
        for op in ops:
            if isinstance(op, Put):
                wanted = self._wanted.get(op.name)
                known = wanted is not None and wanted.value is op.value
                self._actual[op.name] = wanted.fingerprint if wanted and known else self._fingerprint(op.value)
            else:
                self._actual.pop(op.name, None)
            self._settle(op.name)

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
        return frozenset({self._last_owner.get(name, LEFTOVER)})

    def objects(self, owner: Owner) -> Mapping[ObjectName, Struct]:
        """What `owner` wants."""
        return {name: self._wanted[name].value for name in self._owned.get(owner, ())}

    def __len__(self) -> int:
        return len(self._wanted)

    def _claim(self, owner: Owner, name: ObjectName, value: Struct) -> None:
        wanted = self._wanted.get(name)
        if wanted is not None and wanted.value == value:
            wanted.owners.add(owner)
        else:
            if wanted is not None and wanted.owners - {owner}:
                raise Contradiction(f"{owner} and {sorted(wanted.owners)} want different values of {name}")
            wanted = _Wanted(value, self._fingerprint(value))
            wanted.owners.add(owner)
            self._wanted[name] = wanted
        self._owned.setdefault(owner, set()).add(name)
        self._settle(name)

    def _let_go(self, owner: Owner, name: ObjectName) -> None:
        names = self._owned[owner]
        names.discard(name)
        if not names:
            del self._owned[owner]
        wanted = self._wanted[name]
        wanted.owners.discard(owner)
        if not wanted.owners:
            del self._wanted[name]
            if name in self._actual:
                self._last_owner[name] = owner
        self._settle(name)

    def _settle(self, name: ObjectName) -> None:
        if self._differs(name):
            self._differing[name] = None
        else:
            self._differing.pop(name, None)
            if name not in self._actual:
                self._last_owner.pop(name, None)

    def _differs(self, name: ObjectName) -> bool:
        wanted = self._wanted.get(name)
        return self._actual.get(name) != (wanted.fingerprint if wanted else None)

    def _op(self, name: ObjectName) -> Op | None:
        wanted = self._wanted.get(name)
        if wanted is None:
            owner = self._last_owner.get(name, LEFTOVER)
            return None if owner in self._held else Delete(owner, name)
        free = wanted.owners - self._held.keys() if self._held else wanted.owners
        return Put(min(free), name, wanted.value, replaces=name in self._actual) if free else None
