"""A set in force and who is in it, each member counted as often as somebody brings it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from calipy.felix.calc import policies
from calipy.felix.calc.change import SetDelta, SetKey
from calipy.felix.calc.policies import SetSpec
from calipy.model.selectables import NamedPort
from calipy.model.sets import EndpointSet, SetKind, endpoint_member


class LiveSet:
    """One set in one family. Knows what has come and gone since the last `moved`."""

    __slots__ = ("_added", "_again", "_removed", "_wide", "key", "kind", "members", "spec")

    def __init__(self, key: SetKey, spec: SetSpec) -> None:
        self.key = key
        self.spec = spec
        self.members: set[str] = set()
        self.kind: SetKind | None = None
        """As of the last `moved`; None: nobody has heard of it yet."""
        self._again: dict[str, int] = {}
        """Member -> how often it is there besides the first time: two pods may have one address."""
        self._wide = 0
        """Members that are more than one address."""
        self._added: set[str] = set()
        self._removed: set[str] = set()

    def bring(self, members: Iterable[str]) -> int:
        """Somebody brings members; so many of them are new."""
        new = 0
        for member in members:
            if member in self.members:
                self._again[member] = self._again.get(member, 0) + 1
                continue
            new += 1
            self.members.add(member)
            self._wide += "/" in member
            if self.kind is not None:
                self._note(member, self._removed, self._added)
        return new

    def take(self, members: Iterable[str]) -> int:
        """Somebody takes along what he had brought; so many of them nobody else has brought."""
        gone = 0
        for member in members:
            more = self._again.get(member, 0)
            if more > 1:
                self._again[member] = more - 1
            elif more:
                del self._again[member]
            else:
                gone += 1
                self.members.remove(member)
                self._wide -= "/" in member
                self._note(member, self._added, self._removed)
        return gone

    @staticmethod
    def _note(member: str, undone: set[str], done: set[str]) -> None:
        if member in undone:
            undone.remove(member)
        else:
            done.add(member)

    def moved(self) -> tuple[SetKind | None, SetDelta]:
        """Its kind where that is another than was last said, and what came and went since."""
        kind = policies.kind(self.spec, wide=self._wide > 0)
        if self.kind is None:
            delta = SetDelta(frozenset(self.members))
        else:
            delta = SetDelta(frozenset(self._added), frozenset(self._removed))
        before, self.kind = self.kind, kind
        self._added, self._removed = set(), set()
        return (kind if kind != before else None), delta

    def told(self) -> frozenset[str]:
        """The members as of the last `moved`."""
        if self.kind is None:
            return frozenset()
        if not (self._added or self._removed):
            return frozenset(self.members)
        return frozenset((self.members - self._added) | self._removed)

    def of(self, nets: Collection[str], ports: Collection[NamedPort]) -> Iterable[str]:
        """What of these addresses and ports belongs in it."""
        mine = (net for net in nets if (":" in net) == (self.key.family == 6))
        if not isinstance(self.spec, EndpointSet):
            return mine
        name, protocol = self.spec.port, self.spec.protocol
        wanted = [port.port for port in ports if port.name == name and port.protocol == protocol]
        return (endpoint_member(net, protocol, port) for net in mine for port in wanted)
