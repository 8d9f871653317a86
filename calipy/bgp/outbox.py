"""What each peer is to hear against what ExaBGP was given for it: decides the next command.

ExaBGP groups what is pending by attributes, not by time: of two changes of one prefix that it has not sent yet, the
older may win; and a session's first batch drops withdrawals. So there is at most one command a second for one (peer,
prefix), and none that differs from what ExaBGP holds in the first second of a session, when it tells all of that on its
own. On each session the full set goes out, for ExaBGP forgets what it was given for a peer that was out of its
configuration; then End-of-RIB (RFC 4724 2), at which the peer drops what it kept of the session before and has not
heard again.

A peer that is to hear nothing and of which ExaBGP holds nothing is forgotten, once the second after its last command is
over; so is a prefix.

Peers go by address. The clock is an argument: monotonic seconds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

from msgspec import Struct

from calipy.bgp.peers import Announcement

APART_S = 1.0
"""From one command for a (peer, prefix) to the next."""
_AGAIN_MOST_S = 60.0


class Order(Struct, frozen=True, gc=False, kw_only=True):
    """What ExaBGP is to be told for one peer, in this order."""

    peer: str
    session: int
    """Which session it is for: each has a number of its own."""
    announce: tuple[Announcement, ...] = ()
    withdraw: tuple[str, ...] = ()
    end_of_rib: bool = False


class Outbox:
    """All peers."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._numbers = itertools.count(1)

    # --- what happens ---

    def want(self, announcements: Mapping[str, Iterable[Announcement]]) -> None:
        """What each configured peer is to hear; one that isn't named is told nothing any more."""
        for address in announcements:
            self._peers.setdefault(address, _Peer())
        for address, peer in self._peers.items():
            peer.wanted = address in announcements
            peer.desired = {found.prefix: found for found in announcements.get(address, ())}
            peer.look_s = -math.inf
        self._forget()

    def up(self, address: str, now_s: float) -> None:
        """A session has come up."""
        self._peers.setdefault(address, _Peer()).begin(next(self._numbers), now_s)

    def down(self, address: str) -> None:
        """A session has ended; ExaBGP keeps what it was given."""
        if address in self._peers:
            self._peers[address].up = False
            self._forget()

    def gone(self, address: str) -> None:
        """ExaBGP no longer has the peer: what it was given is forgotten."""
        if address in self._peers:
            self._peers[address].end()
            self._forget()

    def lost(self) -> None:
        """ExaBGP can't be reached: what it holds is to be found out anew."""
        for peer in self._peers.values():
            peer.end()
        self._forget()

    def found(self, address: str, prefixes: Iterable[str]) -> None:
        """ExaBGP was given these for the peer, by whomever, and with what is not known."""
        peer = self._peers.setdefault(address, _Peer())
        for prefix in prefixes:
            peer.given.setdefault(prefix, None)
        peer.look_s = -math.inf

    # --- what is to be done ---

    def next(self, now_s: float) -> Order | None:
        """The next command; None = nothing is due. To be carried out before the next is asked for."""
        self._forget(now_s)
        for address, peer in self._peers.items():
            if peer.wanted and peer.up and peer.look_s <= now_s:
                order = peer.order(address, now_s)
                if order is not None:
                    return order
        return None

    def farewells(self) -> tuple[Order, ...]:
        """What peers that are to go must hear before ExaBGP lets go of them: under graceful restart it does so without
        a word, and they would hold the routes for the restart time (RFC 4724 4.2)."""
        return tuple(
            Order(peer=address, session=peer.session, withdraw=tuple(sorted(peer.given)))
            for address, peer in self._peers.items()
            if peer.up and peer.given and not peer.wanted
        )

    def deadline(self) -> float | None:
        """When `next` will have something to give or to forget; None = not before something happens."""
        waits = [peer.look_s for peer in self._peers.values() if peer.wanted and peer.up]
        first = min([*waits, *(peer.forget_s for peer in self._peers.values())], default=math.inf)
        return first if first < math.inf else None

    def landed(self, order: Order, now_s: float) -> None:
        """ExaBGP has taken it."""
        self._peers.setdefault(order.peer, _Peer()).landed(order, now_s)

    def refused(self, order: Order, now_s: float) -> None:
        """ExaBGP has not taken it, or part of it: it is tried again, ever less often."""
        self._peers.setdefault(order.peer, _Peer()).refused(order, now_s)

    def addresses(self) -> frozenset[str]:
        """All peers of which anything is held."""
        return frozenset(self._peers)

    def announced(self, address: str) -> int:
        """How many prefixes ExaBGP was given for the peer."""
        return len(self._peers[address].given) if address in self._peers else 0

    def _forget(self, now_s: float = -math.inf) -> None:
        for address, peer in tuple(self._peers.items()):
            peer.forget(now_s)
            if peer.idle:
                del self._peers[address]


class _Peer:
    """One peer."""

    def __init__(self) -> None:
        self.wanted = False
        self.up = False
        self.session = 0
        self.up_s = -math.inf
        self.owes_end = False
        self.desired: dict[str, Announcement] = {}
        self.given: dict[str, Announcement | None] = {}
        """What ExaBGP holds, by prefix; None = nobody knows with what."""
        self.told: set[str] = set()
        """Prefixes that were announced in this session."""
        self.told_s: dict[str, float] = {}
        """When the last command for a prefix was."""
        self.look_s = math.inf
        """When something may be due."""
        self.forget_s = math.inf
        """When the last of `told_s` no longer matters."""
        self.retry_s = -math.inf
        self.failures = 0

    @property
    def idle(self) -> bool:
        return not (self.wanted or self.up or self.given or self.told_s)

    def forget(self, now_s: float) -> None:
        if self.forget_s <= now_s:
            self.told_s, self.forget_s = {}, math.inf

    def end(self) -> None:
        self.up, self.given = False, {}

    def begin(self, session: int, now_s: float) -> None:
        self.up, self.up_s, self.owes_end = True, now_s, True
        self.session = session
        self.told = set()
        self.retry_s, self.failures = -math.inf, 0
        self.look_s = -math.inf

    def order(self, address: str, now_s: float) -> Order | None:
        self.look_s = max(math.inf if self.retry_s <= now_s else self.retry_s, now_s)
        if self.retry_s > now_s:
            return None
        announce = [self.desired[prefix] for prefix in sorted(self.desired) if self._due(prefix, now_s)]
        withdraw = [prefix for prefix in sorted(self.given) if prefix not in self.desired and self._due(prefix, now_s)]
        held = self.given.keys() | {announcement.prefix for announcement in announce}
        end = self.owes_end and self.desired.keys() <= held
        if not (announce or withdraw or end):
            return None
        self.look_s = -math.inf
        return Order(
            peer=address, session=self.session, announce=tuple(announce), withdraw=tuple(withdraw), end_of_rib=end
        )

    def _due(self, prefix: str, now_s: float) -> bool:
        """Whether a command for the prefix is to go now; notes when it may, if it is to go later."""
        desired, given = self.desired.get(prefix), self.given.get(prefix)
        if desired is not None and desired == given and prefix in self.told:
            return False
        free_s = self.told_s.get(prefix, -math.inf) + APART_S
        if prefix in self.given and (desired is None or desired != given):
            free_s = max(free_s, self.up_s + APART_S)
        if free_s > now_s:
            self.look_s = min(self.look_s, free_s)
            return False
        return True

    def landed(self, order: Order, now_s: float) -> None:
        self._note(order, now_s)
        for announcement in order.announce:
            self.given[announcement.prefix] = announcement
        for prefix in order.withdraw:
            self.given.pop(prefix, None)
        if order.session == self.session:
            self.failures = 0
            self.told.update(announcement.prefix for announcement in order.announce)
            self.told.difference_update(order.withdraw)
            self.owes_end = self.owes_end and not order.end_of_rib

    def refused(self, order: Order, now_s: float) -> None:
        self._note(order, now_s)
        for announcement in order.announce:
            self.given[announcement.prefix] = None
        for prefix in self.given.keys() & set(order.withdraw):
            self.given[prefix] = None
        self.retry_s = now_s + min(2.0**self.failures, _AGAIN_MOST_S)
        self.failures += 1

    def _note(self, order: Order, now_s: float) -> None:
        self.told_s = {prefix: at_s for prefix, at_s in self.told_s.items() if at_s + APART_S > now_s}
        for prefix in (*(announcement.prefix for announcement in order.announce), *order.withdraw):
            self.told_s[prefix] = now_s
        self.forget_s = now_s + APART_S if self.told_s else math.inf
        self.look_s = -math.inf
