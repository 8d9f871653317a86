"""Sets as kernel objects.

An interval set takes no overlapping prefixes: of the members those go in that no other covers. Which those are is kept
from change to change (`Cover`), so that an address more or less among many costs no more than itself.
"""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import IPv6Address, ip_network

from msgspec import Struct
from msgspec.structs import replace

from calipy.felix.calc.change import NodeState, SetDelta, SetKey
from calipy.felix.objects import Members, ObjectName, Objects
from calipy.felix.rules import names
from calipy.felix.rules.steps import Steps
from calipy.felix.rules.values import SetSpec
from calipy.model.sets import net_member

_SLICE = 2000


class Cover(Struct, frozen=True, gc=False, kw_only=True):
    """What in a set of prefixes covers what."""

    firsts: tuple[int, ...] = ()
    """First addresses of the widest networks, sorted."""
    lasts: tuple[int, ...] = ()
    """Their last ones."""
    out: frozenset[str] = frozenset()
    """Members that a network among the members covers, or that go by another text."""
    instead: frozenset[str] = frozenset()
    """The texts of those: a whole address goes without its prefix length."""

    def covers(self, address: str) -> bool:
        """True if a network among the members holds the address."""
        number = _number(address)
        at = bisect_right(self.firsts, number) - 1
        return at >= 0 and number <= self.lasts[at]

    def keys(self, members: frozenset[str]) -> frozenset[str]:
        """What the kernel's set holds of the members."""
        return (members - self.out) | self.instead if self.out else members


def cover_steps(members: frozenset[str]) -> Steps[Cover]:
    """The cover of a set's members, bit by bit."""
    networks: list[tuple[int, int, str]] = []
    for count, member in enumerate(members, 1):
        if "/" in member:
            network = ip_network(member)
            networks.append((int(network.network_address), -int(network.broadcast_address), member))
        if count % _SLICE == 0:
            yield
    cover = _widest(networks)
    out = set(cover.out)
    for count, member in enumerate(members if networks else (), 1):
        if "/" not in member and cover.covers(member):
            out.add(member)
        if count % _SLICE == 0:
            yield
    return replace(cover, out=frozenset(out))


def _widest(networks: list[tuple[int, int, str]]) -> Cover:
    """The cover of networks among themselves: of two one holds the other, or none of it."""
    firsts: list[int] = []
    lasts: list[int] = []
    out: list[str] = []
    instead: list[str] = []
    for first, negative, text in sorted(networks):
        covered = bool(lasts) and -negative <= lasts[-1]
        if covered or first == -negative:
            out.append(text)
        if not covered:
            firsts.append(first)
            lasts.append(-negative)
            if first == -negative:
                instead.append(net_member(text))
    return Cover(firsts=tuple(firsts), lasts=tuple(lasts), out=frozenset(out), instead=frozenset(instead))


def moved_cover(cover: Cover, delta: SetDelta) -> Cover | None:
    """The cover after a delta; None where a network came or went, which may cover anybody."""
    if any("/" in member for members in (delta.added, delta.removed) for member in members):
        return None
    return replace(cover, out=(cover.out - delta.removed) | {member for member in delta.added if cover.covers(member)})


def compile(key: SetKey, state: NodeState, cover: Cover) -> Objects:
    """A set with all its members. `cover` is that of a set of prefixes; of any other nothing is covered."""
    kind = state.sets[key]
    name = names.set_name(key, kind)
    return {names.set_(name): SetSpec(kind, key.family), names.members(name): Members(cover.keys(state.members[key]))}


def moved(key: SetKey, state: NodeState, delta: SetDelta, before: Cover, after: Cover) -> dict[ObjectName, SetDelta]:
    """What a delta of the state is to the members in the kernel."""
    name = names.members(names.set_name(key, state.sets[key]))
    return {name: SetDelta(delta.added - after.out, delta.removed - before.out)}


def _number(address: str) -> int:
    if ":" in address:
        return int(IPv6Address(address))
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)
