"""What the peers have announced, and which of it is best (RFC 4271 9.1; graceful restart as receiver: RFC 4724 4.2).

The clock is the caller's: `now_s` is any monotonic time in seconds. Configure first: messages of a peer that isn't
configured are dropped.

Order of the decision: local preference (100 from outside), length of the AS path, origin, MED (among paths through the
same neighbouring AS; absent = 0), external before internal. All that are equal up to there are joined as multipath, so
the steps that follow in RFC 4271 9.1.2.2 (IGP cost, which is equal for all, router ID, address) have nothing to decide.

A session whose TCP connection just ended, graceful restart being negotiated, leaves its paths behind as stale: they
count as before until the peer's restart time is over, or until its next End-of-RIB for those that it didn't repeat. A
NOTIFICATION in either direction, an expired hold timer among them, ends them at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from calipy.bgp.messages import Down, EndOfRib, Message, Opened, Path, Shutdown, Up, Updated
from calipy.bgp.peers import Peer, Topology
from calipy.model.routes import NORMAL_METRIC, LearnedRoute

DEFAULT_PREFERENCE = 100
_CALICO_PREFERENCES = range(2**30, 2**31 - 1)
"""Local preferences that are 2147483647 - metric: those of a metric from 1 to 2^30 - 1. Far above what people set by
hand, and a metric beyond would be one that no Calico node uses."""
_GREATEST = 2**31 - 1
_ORIGINS = ("igp", "egp", "incomplete")

_LOST = "closing connection"
"""ExaBGP's reason of `down` for a connection that broke, or that the peer closed without a NOTIFICATION."""
_SHUTTING_DOWN = "stop, message [shutting down]"
_OWN_ENDS = frozenset({"graceful restarted negotiated, closing without sending any notification", _SHUTTING_DOWN})
"""The reasons for which our own ExaBGP closes a connection without a NOTIFICATION: new settings of the peer, a teardown
by command, its own end."""


class _State:
    """One peer."""

    __slots__ = ("deadline_s", "ended", "keeps", "ours", "paths", "peer", "restart_s", "stale", "up")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.paths: dict[str, Path] = {}
        self.stale: set[str] = set()
        self.deadline_s: float | None = None
        self.restart_s = 0
        """From the newest OPEN; 0 = no graceful restart."""
        self.keeps = False
        """The newest OPEN says that the peer went on forwarding (F bit)."""
        self.up = False
        self.ended = False
        """It has sent End-of-RIB since this Rib exists."""
        self.ours = False
        """The stale paths are from a session that our own ExaBGP ended: the peer's F bit says nothing about them."""


class Rib:
    """The paths of all peers."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}
        """By the peer's address."""
        self._holders: dict[str, set[str]] = {}
        """Prefix -> addresses of the peers that announced it."""
        self._router_id = ""
        self._own: frozenset[str] = frozenset()

    def configure(self, topology: Topology, now_s: float) -> frozenset[str]:
        """Take these sessions for all there are. A peer that is gone takes its paths along at once, stale ones too.
        Returns the prefixes whose outcome may have moved."""
        wanted = {peer.address: peer for peer in topology.peers}
        moved: set[str] = set()
        for address in self._states.keys() - wanted.keys():
            moved |= self._drop(self._states.pop(address))
        own = frozenset(peer.local_address for peer in topology.peers)
        if (own, topology.router_id) != (self._own, self._router_id):
            self._own, self._router_id = own, topology.router_id
            moved |= self._holders.keys()
        for address, peer in wanted.items():
            state = self._states.setdefault(address, _State(peer))
            if state.peer != peer:
                state.peer = peer
                moved |= state.paths.keys()
        return frozenset(moved)

    def take(self, message: Message, now_s: float) -> frozenset[str]:
        """Fold in what ExaBGP said. Returns the prefixes whose outcome may have moved."""
        if isinstance(message, Shutdown):
            return self._shut_down(now_s)
        if not isinstance(message, Opened | Up | Down | Updated | EndOfRib):
            return frozenset()
        state = self._states.get(message.peer)
        if state is None:
            return frozenset()
        match message:
            case Opened():
                state.restart_s = message.restart_time_s or 0
                state.keeps = state.peer.family in message.families_kept
                return frozenset()
            case Up():
                return self._up(state, now_s)
            case Down():
                return self._down(state, message.reason, now_s)
            case Updated():
                state.up = True
                return self._update(state, message)
            case EndOfRib():
                state.up = state.ended = True
                return self._drop_stale(state)

    def expire(self, now_s: float) -> frozenset[str]:
        """End the stale paths whose time is over by now. Returns the prefixes whose outcome may have moved."""
        moved: set[str] = set()
        for state in self._states.values():
            if state.deadline_s is not None and state.deadline_s <= now_s:
                moved |= self._drop_stale(state)
        return frozenset(moved)

    def deadline(self) -> float | None:
        """When `expire` next has something to do."""
        return min((s.deadline_s for s in self._states.values() if s.deadline_s is not None), default=None)

    def outcome(self, prefix: str) -> LearnedRoute | None:
        """What the decision process makes of all paths to `prefix`; None without a usable one."""
        best = self._best(prefix)
        if not best:
            return None
        preference = _preference(*best[0])
        return LearnedRoute(
            prefix=prefix,
            next_hops=tuple(sorted({path.next_hop for _, path in best})),
            peers=tuple(sorted(peer.address for peer, _ in best)),
            metric=_GREATEST - preference if preference in _CALICO_PREFERENCES else NORMAL_METRIC,
        )

    @property
    def prefixes(self) -> frozenset[str]:
        """All prefixes that some peer announced, whether usable or not."""
        return frozenset(self._holders)

    def waiting(self) -> frozenset[str]:
        """Names of the configured peers that haven't sent End-of-RIB since this Rib exists."""
        return frozenset(state.peer.name for state in self._states.values() if not state.ended)

    def received(self, peer_address: str) -> int:
        """How many paths there are from a peer, stale ones included."""
        state = self._states.get(peer_address)
        return len(state.paths) if state else 0

    def stale(self, peer_address: str) -> bool:
        """True while paths of the peer are kept from a session that has ended."""
        state = self._states.get(peer_address)
        return state is not None and bool(state.stale)

    def _up(self, state: _State, now_s: float) -> frozenset[str]:
        state.up = True
        if not state.stale:
            return frozenset()
        if not state.ours and not (state.restart_s and state.keeps):
            # RFC 4724 4.2: the peer says that it lost its forwarding state, so what it had said before is void.
            return self._drop_stale(state)
        # A bound to the wait for End-of-RIB; a second end of the session doesn't get here again with the same paths.
        state.deadline_s = now_s + (state.restart_s or state.peer.restart_time_s)
        return frozenset()

    def _down(self, state: _State, reason: str, now_s: float) -> frozenset[str]:
        if not state.up:
            # An attempt has failed. The stale paths and their time stay as they are.
            return frozenset()
        state.up = False
        # RFC 4724 4.2: a path that was stale already must not survive a second end of the session.
        moved = self._drop_stale(state)
        seconds = state.restart_s if state.peer.restart_time_s else 0
        if not seconds or not (reason == _LOST or reason in _OWN_ENDS):
            return moved | self._drop(state)
        state.stale = set(state.paths)
        state.deadline_s = now_s + seconds if state.stale else None
        state.ours = reason in _OWN_ENDS
        return moved

    def _shut_down(self, now_s: float) -> frozenset[str]:
        moved: frozenset[str] = frozenset()
        for state in self._states.values():
            moved |= self._down(state, _SHUTTING_DOWN, now_s)
        return moved

    def _update(self, state: _State, update: Updated) -> frozenset[str]:
        moved = self._remove(state, update.withdrawn)
        for path in update.announced:
            state.stale.discard(path.prefix)
            if state.paths.get(path.prefix) != path:
                state.paths[path.prefix] = path
                self._holders.setdefault(path.prefix, set()).add(state.peer.address)
                moved.add(path.prefix)
        return frozenset(moved)

    def _drop_stale(self, state: _State) -> frozenset[str]:
        moved = self._remove(state, tuple(state.stale))
        state.deadline_s, state.ours = None, False
        return frozenset(moved)

    def _drop(self, state: _State) -> frozenset[str]:
        moved = self._remove(state, tuple(state.paths))
        state.deadline_s, state.ours = None, False
        return frozenset(moved)

    def _remove(self, state: _State, prefixes: Iterable[str]) -> set[str]:
        moved = set()
        for prefix in prefixes:
            state.stale.discard(prefix)
            if state.paths.pop(prefix, None) is not None:
                moved.add(prefix)
                holders = self._holders[prefix]
                holders.discard(state.peer.address)
                if not holders:
                    del self._holders[prefix]
        return moved

    def _best(self, prefix: str) -> list[tuple[Peer, Path]]:
        """The paths that no step of the decision rules out."""
        states = [self._states[address] for address in sorted(self._holders.get(prefix, ()))]
        usable = [
            (state.peer, state.paths[prefix]) for state in states if self._usable(state.peer, state.paths[prefix])
        ]
        if not usable:
            return []
        rank = min(_rank(peer, path) for peer, path in usable)
        equal = [(peer, path) for peer, path in usable if _rank(peer, path) == rank]
        lowest: dict[int, int] = {}
        for _, path in equal:
            neighbour, med = _neighbour_as(path), path.med or 0
            lowest[neighbour] = min(lowest.get(neighbour, med), med)
        equal = [(peer, path) for peer, path in equal if (path.med or 0) == lowest[_neighbour_as(path)]]
        external = [(peer, path) for peer, path in equal if peer.external]
        return external or equal

    def _usable(self, peer: Peer, path: Path) -> bool:
        """RFC 4271 9.1.2 (own AS in the path), RFC 4456 8 (own originator ID), RFC 4271 5.1.3 (own address)."""
        loops = sum(peer.local_as in hop for hop in path.as_path)
        return (
            loops <= peer.own_as_allowed
            and (not path.originator_id or path.originator_id != self._router_id)
            and path.next_hop not in self._own
        )


def _preference(peer: Peer, path: Path) -> int:
    if peer.external or path.local_preference is None:
        return DEFAULT_PREFERENCE
    return path.local_preference


def _rank(peer: Peer, path: Path) -> tuple[int, int, int]:
    """Smaller is better."""
    return (-_preference(peer, path), len(path.as_path), _ORIGINS.index(path.origin))


def _neighbour_as(path: Path) -> int:
    """The AS that the path came in through; 0 = it began in our own."""
    return path.as_path[0][0] if path.as_path and path.as_path[0] else 0
