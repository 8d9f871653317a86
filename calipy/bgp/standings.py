"""Each session's state, since when it is so, and why. Peers go by address; times are monotonic seconds.

Of a peer that isn't wanted only a session that is up is remembered: ExaBGP has it until its next reload.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from calipy.bgp.messages import Connected, Down, Message, Neighbor, Notified, Up

State = Literal["down", "connected", "up"]
ESTABLISHED = "ESTABLISHED"
"""ExaBGP's state machine, RFC 4271 8.2.2. Its `state` in the answer says `down` in a session's first second."""

_INEXACT_S = 2.0
"""ExaBGP counts whole seconds."""
_MEANINGS = {
    (2, 2): "bad peer AS",
    (2, 3): "bad BGP identifier",
    (2, 5): "authentication failure",
    (2, 6): "unacceptable hold time",
    (2, 7): "unsupported capability",
    (4, 0): "hold timer expired",
    (6, 1): "maximum number of prefixes reached",
    (6, 2): "administrative shutdown",
    (6, 3): "peer de-configured",
    (6, 4): "administrative reset",
    (6, 5): "connection rejected",
    (6, 6): "other configuration change",
    (6, 7): "connection collision resolution",
    (6, 8): "out of resources",
}
"""NOTIFICATION codes (RFC 4271 4.5, RFC 4486 4). A peer's data may be bytes that say nothing to people, as the AS
number that BIRD sends with 2/2; and what a peer sends is not for a terminal as it is."""


class Standing(Struct, frozen=True, gc=False):
    """One session."""

    state: State
    since_s: float
    reason: str = ""


class Standings:
    """All sessions that anything was heard of."""

    def __init__(self, now_s: float) -> None:
        self._start_s = now_s
        self._wanted: frozenset[str] | None = None
        """None = not yet known, so all are remembered."""
        self._standings: dict[str, Standing] = {}
        self._before: dict[str, float] = {}
        """Since when sessions were up that were up at the last loss."""
        self._said: dict[str, str] = {}
        """Why a NOTIFICATION ends the session that is about to go down."""

    def want(self, addresses: Iterable[str]) -> None:
        """The configured peers; what is remembered of others is forgotten."""
        self._wanted = frozenset(addresses)
        self._forget(*self._standings, *self._before, *self._said)

    def of(self, address: str) -> Standing:
        """A session's; one that nothing was heard of is down since the start."""
        return self._standings.get(address) or Standing("down", self._start_s, "no session yet")

    def take(self, message: Message, now_s: float) -> None:
        """What ExaBGP said."""
        match message:
            case Up(peer=peer):
                self._become(peer, "up", now_s, "")
            case Connected(peer=peer):
                self._become(peer, "connected", now_s, "the peer has not yet answered our OPEN")
            case Notified(peer=peer):
                self._said[peer] = _told(message)
            case Down(peer=peer):
                self._become(peer, "down", now_s, self._said.pop(peer, "") or message.reason)
            case _:
                return
        self._forget(message.peer)

    def found(self, neighbors: Iterable[Neighbor], now_s: float) -> frozenset[str]:
        """ExaBGP's own account: it has these peers and no other. Gives those whose sessions are the ones that were up
        before the loss."""
        same = set()
        established = [neighbor for neighbor in neighbors if neighbor.state == ESTABLISHED]
        for address in self.up() - {neighbor.peer for neighbor in established}:
            self._become(address, "down", now_s, "ExaBGP has no session with it")
            self._forget(address)
        for neighbor in established:
            since_s = now_s - neighbor.duration_s
            before_s = self._before.get(neighbor.peer)
            if before_s is not None and abs(since_s - before_s) <= _INEXACT_S:
                since_s = before_s
                same.add(neighbor.peer)
            if self.of(neighbor.peer).state != "up":
                self._standings[neighbor.peer] = Standing("up", since_s)
        return frozenset(same)

    def lost(self, reason: str, now_s: float) -> None:
        """Nothing is known of any session any more."""
        up = {address: self._standings[address].since_s for address in self.up()}
        # The successor of one that was younger, with an ExaBGP that was started anew, may look as old as it.
        self._before = {address: since_s for address, since_s in up.items() if now_s - since_s > _INEXACT_S + 1}
        self._said.clear()
        for address in self._standings:
            self._become(address, "down", now_s, reason)
        self._forget(*self._standings)

    def up(self) -> frozenset[str]:
        """Addresses of the peers whose sessions are up."""
        return frozenset(address for address, standing in self._standings.items() if standing.state == "up")

    def _forget(self, *addresses: str) -> None:
        for address in addresses:
            if self._wanted is not None and address not in self._wanted and self.of(address).state != "up":
                self._standings.pop(address, None)
                self._before.pop(address, None)
                self._said.pop(address, None)

    def _become(self, address: str, state: State, now_s: float, reason: str) -> None:
        former = self.of(address)
        since_s = former.since_s if former.state == state and address in self._standings else now_s
        self._standings[address] = Standing(state, since_s, reason)


def _told(message: Notified) -> str:
    whose = "we sent" if message.direction == "sent" else "the peer sent"
    text = message.text if message.text.isprintable() and "\ufffd" not in message.text else ""
    text = text or _MEANINGS.get((message.code, message.subcode), "")
    return f"{whose} NOTIFICATION {message.code}/{message.subcode} {text}".strip()
