"""The agent's side of BGP: ExaBGP's configuration, what it is told for each peer, and what it says.

ExaBGP reaches us through its pipe (`calipy.bgp.pipe`). Each connection starts over: ExaBGP is asked where it stands,
what the peers have announced and what they were told. So the pipe, ExaBGP or this agent may end at any time and come
back: a session that goes on isn't touched, and routes that are still announced are not moved.

While there is no connection, routes are kept as RFC 4724 has them kept while a peer restarts, for its restart time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from calipy.bgp import exabgp_config, installation
from calipy.bgp.channel import Channel, Gone, Refused
from calipy.bgp.messages import (
    SHOW_NEIGHBORS,
    SHOW_RECEIVED,
    SHOW_TOLD,
    Down,
    EndOfRib,
    Message,
    Neighbor,
    Neighbors,
    Opened,
    Shutdown,
    Up,
    announce_commands,
    decode,
    decode_route,
    end_of_rib_command,
    refresh_command,
    withdraw_commands,
)
from calipy.bgp.outbox import Order, Outbox
from calipy.bgp.peers import Announcement, Peer, Topology
from calipy.bgp.pipe import SOCKET
from calipy.bgp.rib import Rib
from calipy.bgp.sidecar import CONFIGURATION, pipe_command
from calipy.bgp.standings import ESTABLISHED, Standing, Standings
from calipy.model.routes import LearnedRoute
from calipy.sockets import accept, listen

TOLD_MOST_S = 60.0
"""So long after the start we wait for peers to tell all that they know."""
_RELOAD_S = 1.0
"""A reload that ExaBGP drops, because updates were under way, succeeds after this time."""
_SENT_S = 0.5
"""By then ExaBGP has sent what it was told: it looks ten times a second."""
_AGAIN_S = 1.0
"""Before a connection that is no good is given up: its successor may be no better."""
_PLACE_AGAIN_S, _PLACE_AGAIN_MOST_S = 1.0, 300.0
_DEFAULT_HOLD_S = 90
_MARK = re.compile(r' ([0-9a-f]{16})";')
log = logging.getLogger("calipy.bgp")


class Configuration(Struct, frozen=True, gc=False, kw_only=True):
    """A file that is in place."""

    topology: Topology
    passwords: Mapping[str, str]
    mark: str
    """Stands in each neighbor's description: ExaBGP that shows it has read this file."""


class Session:
    """`post` gets outcomes by prefix, None = withdrawn; `told` is called once, when the peers have said what they
    know. Both are called on the loop."""

    def __init__(
        self,
        folder: Path,
        post: Callable[[Mapping[str, LearnedRoute | None]], object],
        told: Callable[[], object],
    ) -> None:
        self._folder = folder
        self._post_routes, self._tell = post, told
        now_s = time.monotonic()
        self._start_s = now_s
        self._rib, self._outbox, self._standings = Rib(), Outbox(), Standings(now_s)
        self._meant: tuple[Topology, Mapping[str, str]] | None = None
        self._placed: Configuration | None = None
        self._agreed = self._restarted_for = ""
        """Marks: of the file that ExaBGP runs with, and of the last one that it was restarted for."""
        self._render, self._wake, self._tick = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._moved: set[str] = set()
        self._posted: dict[str, LearnedRoute] = {}
        self._learning = self._asks_again = self._accounted = False
        self._has_told = False
        self._lost_s: float | None = now_s
        self._opened: set[str] = set()
        self._ended: set[str] = set()
        """Peers whose End-of-RIB came over this connection."""
        self._unplaced = self._unread = ""
        """What is wrong with the file, and with ExaBGP's reading of it."""

    # --- what others ask for ---

    def configure(
        self, topology: Topology, passwords: Mapping[str, str], announcements: Mapping[str, tuple[Announcement, ...]]
    ) -> None:
        """What there is to be; passwords and announcements by peer name. Takes effect by and by."""
        meant = (topology, dict(passwords))
        if meant != self._meant:
            former = self._meant[0].peers if self._meant is not None else ()
            added = {peer.address for peer in topology.peers} - {peer.address for peer in former}
            # What a peer said while nobody asked for it is heard again only if ExaBGP is asked.
            self._asks_again = self._asks_again or bool(added & self._standings.up())
            self._meant = meant
            self._opened &= {peer.address for peer in topology.peers}
            self._moved |= self._rib.configure(topology, time.monotonic())
            self._render.set()
            self._tick.set()
        self._outbox.want({peer.address: announcements.get(peer.name, ()) for peer in topology.peers})
        self._wake.set()
        self._post()

    @property
    def problem(self) -> str:
        """Why ExaBGP doesn't run with what is meant; empty if it does, or is about to."""
        return self._unplaced or self._unread

    def listen(self, listener: Callable[[], None]) -> None:
        """`listener` is called after anything has happened: to a session, or to what is wrong."""
        self._listeners.append(listener)

    @property
    def connected(self) -> bool:
        """True while ExaBGP can be talked to, and it is known where it stands."""
        return self._lost_s is None

    def standing(self, peer: Peer) -> Standing:
        """How a session is."""
        return self._standings.of(peer.address)

    def received(self, peer: Peer) -> int:
        """Prefixes that the peer has announced."""
        return self._rib.received(peer.address)

    def announced(self, peer: Peer) -> int:
        """Prefixes that it was told."""
        return self._outbox.announced(peer.address)

    def stale(self, peer: Peer) -> bool:
        """True while its routes are held without a session."""
        lost = self._lost_s is not None and self._rib.received(peer.address) > 0
        return lost or self._rib.stale(peer.address)

    async def run(self) -> None:
        """Everything, without end. Raises OSError where the socket can't be made."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._place())
            group.create_task(self._keep_time())
            group.create_task(self._serve())

    # --- the file ---

    async def _place(self) -> None:
        """Keeps the file as it is meant to be. What can't be put in place is tried again, ever less often: a disk that
        is full, or a node too busy to have the file checked in time, tells nobody when it no longer is."""
        failures = 0
        again_s: float | None = None
        while True:
            await self._until(self._render, again_s)
            again_s = None
            if self._meant is None:
                continue
            (topology, passwords), path = self._meant, self._folder / CONFIGURATION
            try:
                mark = await self._put(topology, passwords)
            except (installation.Rejected, exabgp_config.ConfigError, OSError) as error:
                former, self._unplaced = self._unplaced, f"{path}: {error}; the last good one stays in force"
                if self._unplaced != former:
                    log.error("BGP: %s", self._unplaced)
                again_s = time.monotonic() + min(_PLACE_AGAIN_S * 2.0**failures, _PLACE_AGAIN_MOST_S)
                failures = min(failures + 1, 16)
            else:
                self._unplaced, failures = "", 0
                self._placed = Configuration(topology=topology, passwords=passwords, mark=mark)
                self._wake.set()
            self._notify()

    async def _put(self, topology: Topology, passwords: Mapping[str, str]) -> str:
        """Puts the file in place, unless the one that is there says the same; its mark. Raises Rejected, ConfigError,
        OSError."""
        path = self._folder / CONFIGURATION
        run = pipe_command(self._folder, _shortest_hold(topology))
        former = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        found = _MARK.search(former)
        if found and exabgp_config.render(topology, passwords, run, found[1]) == former:
            return found[1]
        mark = secrets.token_hex(8)
        text = exabgp_config.render(topology, passwords, run, mark)
        await installation.install(path, text, passwords.values())
        return mark

    # --- the connection ---

    async def _serve(self) -> None:
        """Takes the pipe's connections; the newest is the one that counts."""
        current: asyncio.Task[None] | None = None
        with contextlib.closing(listen(self._folder / SOCKET)) as listener:
            async with asyncio.TaskGroup() as group:
                while True:
                    raw = await accept(listener)
                    if current is not None:
                        current.cancel()
                        await asyncio.wait([current])
                    current = group.create_task(self._converse(raw))

    async def _converse(self, raw: socket.socket) -> None:
        channel = await Channel.on(raw, self._hear)
        try:
            async with asyncio.TaskGroup() as group:
                driver = group.create_task(self._drive(channel))
                await channel.listen()
                driver.cancel()
        finally:
            channel.close()
            self._lose()

    async def _drive(self, channel: Channel) -> None:
        try:
            while self._meant is None:
                await self._until(self._wake, None)
            await self._learn(channel)
            while True:
                if self._asks_again:
                    await self._learn(channel)
                await self._agree(channel)
                order = self._outbox.next(time.monotonic())
                if order is None:
                    await self._until(self._wake, self._outbox.deadline())
                else:
                    await self._send(channel, order)
        except (Gone, Refused) as error:
            log.warning("BGP: %s; starting over", error)
            await asyncio.sleep(_AGAIN_S)
            channel.close()

    def _lose(self) -> None:
        """The connection has ended: with the pipe, with ExaBGP, or because it was no good."""
        now_s = time.monotonic()
        self._lost_s = now_s
        self._standings.lost("ExaBGP doesn't answer", now_s)
        self._outbox.lost()
        self._agreed = ""
        self._ended.clear()
        self._learning = self._accounted = False
        self._tick.set()
        self._notify()
        log.warning("BGP: the connection to ExaBGP is lost; routes are kept for the peers' restart times")

    @staticmethod
    async def _until(event: asyncio.Event, deadline_s: float | None) -> None:
        """Until the event, or the deadline."""
        wait_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await event.wait()
        event.clear()

    # --- what ExaBGP says ---

    def _hear(self, line: bytes) -> None:
        now_s = time.monotonic()
        for message in decode(line):
            self._take(message, now_s)
        self._post()
        self._notify()

    def _take(self, message: Message, now_s: float) -> None:
        was_up = isinstance(message, Down) and self._standings.of(message.peer).state == "up"
        self._standings.take(message, now_s)
        match message:
            case Up(peer=peer):
                # Its OPEN came before this connection was listened to: what it said of graceful restart is asked for,
                # or its routes would go, not stay, when the session ends.
                self._asks_again = self._asks_again or peer not in self._opened
                self._outbox.up(peer, now_s)
                self._wake.set()
                log.info("BGP: the session with %s is up", peer)
            case Down(peer=peer):
                self._outbox.down(peer)
                self._ended.discard(peer)
                if was_up:
                    log.warning("BGP: the session with %s is down: %s", peer, self._standings.of(peer).reason)
            case Opened(peer=peer):
                self._opened.add(peer)
            case EndOfRib(peer=peer):
                self._ended.add(peer)
            case _:
                pass
        if self._accounted or not isinstance(message, Down):
            # Before ExaBGP has given its account, what ends may be an attempt of one that was started anew, while we
            # hold what the session before it has told: the account says how each session stands.
            self._moved |= self._rib.take(message, now_s)
        self._tick.set()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    def _post(self) -> None:
        """Tells of the prefixes whose outcome has moved."""
        if self._learning or not self._moved:
            return
        moved, self._moved = self._moved, set()
        routes: dict[str, LearnedRoute | None] = {}
        for prefix in moved:
            outcome = self._rib.outcome(prefix)
            if outcome != self._posted.get(prefix):
                routes[prefix] = outcome
            if outcome is None:
                self._posted.pop(prefix, None)
            else:
                self._posted[prefix] = outcome
        if routes:
            self._post_routes(routes)

    # --- where ExaBGP stands ---

    async def _learn(self, channel: Channel) -> None:
        """Takes in what ExaBGP knows, and posts what has come of it at once: no route goes and comes back."""
        self._learning, self._asks_again = True, False
        found: list[Neighbor] = []
        complete: set[str] = set()

        def neighbors(line: bytes) -> None:
            for message in decode(line):
                if isinstance(message, Neighbors):
                    found.extend(message.neighbors)
                    complete.update(self._found(message.neighbors))

        def incoming(line: bytes) -> None:
            update = decode_route(line)
            if update is not None and update.peer in self._standings.up():
                self._moved.update(self._rib.take(update, time.monotonic()))

        def outgoing(line: bytes) -> None:
            update = decode_route(line)
            if update is not None:
                self._outbox.found(update.peer, [path.prefix for path in update.announced])

        await channel.ask(SHOW_NEIGHBORS, neighbors)
        await channel.ask(SHOW_RECEIVED, incoming)
        await channel.ask(SHOW_TOLD, outgoing)
        self._close_account(complete | self._ended)
        for neighbor in found:
            # Whether its End-of-RIB came and went, or is yet to come, nobody knows; the answer to this has an end, too.
            if neighbor.state == ESTABLISHED and neighbor.route_refresh and neighbor.peer not in complete | self._ended:
                await channel.ask(refresh_command(neighbor.peer, _family(neighbor.peer)))

    def _close_account(self, complete: set[str]) -> None:
        """All is heard that ExaBGP has; of the peers in `complete` that is all there is."""
        now_s = time.monotonic()
        for address in complete & self._standings.up():
            self._take(EndOfRib(peer=address, family=_family(address)), now_s)
        self._learning = False
        self._lost_s = None
        self._post()
        self._notify()
        log.info("BGP: ExaBGP is connected, %d sessions are up", len(self._standings.up()))

    def _found(self, neighbors: tuple[Neighbor, ...]) -> set[str]:
        """Compares ExaBGP's account of the sessions with ours. Gives the addresses of those that have told all, whose
        routes ExaBGP therefore has complete."""
        now_s = time.monotonic()
        self._accounted = True
        self._moved |= self._rib.take(Shutdown(), now_s)
        same = self._standings.found(neighbors, now_s)
        complete = set()
        for neighbor in neighbors:
            if neighbor.state != ESTABLISHED:
                continue
            self._reopen(neighbor, now_s)
            had_ended = neighbor.peer in same and not self._waits_for(neighbor.peer)
            if neighbor.duration_s >= TOLD_MOST_S or had_ended:
                complete.add(neighbor.peer)
        return complete

    def _reopen(self, neighbor: Neighbor, now_s: float) -> None:
        """A session that came up when we weren't there."""
        configured = self._peer(neighbor.peer)
        if configured is not None and neighbor.peer not in self._opened:
            family = _family(neighbor.peer)
            opened = Opened(
                peer=neighbor.peer,
                router_id=neighbor.router_id,
                as_number=neighbor.as_number,
                hold_time_s=configured.hold_time_s,
                restart_time_s=configured.restart_time_s if neighbor.graceful_restart else None,
                families_kept=(family,),
            )
            self._moved |= self._rib.take(opened, now_s)
        self._moved |= self._rib.take(Up(peer=neighbor.peer, router_id=""), now_s)
        self._outbox.up(neighbor.peer, now_s)

    def _waits_for(self, address: str) -> bool:
        peer = self._peer(address)
        return peer is None or peer.name in self._rib.waiting()

    def _peer(self, address: str) -> Peer | None:
        peers = self._meant[0].peers if self._meant is not None else ()
        return next((peer for peer in peers if peer.address == address), None)

    # --- what ExaBGP is told ---

    async def _agree(self, channel: Channel) -> None:
        """Has ExaBGP run with the file that is in place: by a reload, or, if two of them don't help, by a restart."""
        placed = self._placed
        if placed is None or self._agreed == placed.mark:
            return
        channel.say(f":hold {_shortest_hold(placed.topology)}")
        if await self._runs_with(channel, placed) or await self._reloaded(channel, placed):
            self._agreed, self._unread = placed.mark, ""
            self._notify()
            return
        self._agreed = placed.mark
        self._unread = "ExaBGP doesn't run with the peers that it was given, see its log"
        log.error("BGP: %s", self._unread)
        if self._restarted_for != placed.mark:
            self._restarted_for = placed.mark
            log.error("BGP: ExaBGP is restarted")
            await channel.ask("shutdown")

    async def _let_go(self, channel: Channel) -> None:
        """Takes back what peers were told that the reload will end."""
        farewells = self._outbox.farewells()
        for order in farewells:
            await self._send(channel, order)
        if farewells:
            # ExaBGP answers when it has queued a command; nothing tells when it has sent it.
            await asyncio.sleep(_SENT_S)

    async def _reloaded(self, channel: Channel, placed: Configuration) -> bool:
        await self._let_go(channel)
        for _ in range(2):
            await channel.ask("reload")
            if await self._runs_with(channel, placed):
                return True
            await asyncio.sleep(_RELOAD_S)
            if await self._runs_with(channel, placed):
                return True
        return False

    async def _runs_with(self, channel: Channel, placed: Configuration) -> bool:
        """Asks for the peers, and for a mark that only this file has."""
        found: set[tuple[str, str, int, int]] = set()
        marks: list[bool] = []

        def neighbors(line: bytes) -> None:
            for message in decode(line):
                if isinstance(message, Neighbors):
                    found.update((n.peer, n.local_address, n.as_number, n.local_as) for n in message.neighbors)

        def description(line: bytes) -> None:
            if line.lstrip().startswith(b"description "):
                marks.append(placed.mark.encode() in line)

        left_out = exabgp_config.refused(placed.topology, placed.passwords)
        peers = [peer for peer in placed.topology.peers if peer.name not in left_out]
        await channel.ask(SHOW_NEIGHBORS, neighbors)
        for address in self._outbox.addresses() - {address for address, *_ in found}:
            self._outbox.gone(address)
        if found != {(p.address, p.local_address, p.as_number, p.local_as) for p in peers}:
            return False
        if peers:
            await channel.ask(f"show neighbor configuration {_telling(peers)}", description)
        return all(marks) and bool(marks) == bool(peers)

    async def _send(self, channel: Channel, order: Order) -> None:
        commands = [*announce_commands(order.peer, order.announce), *withdraw_commands(order.peer, order.withdraw)]
        if order.end_of_rib:
            commands.append(end_of_rib_command(order.peer, _family(order.peer)))
        try:
            for command in commands:
                await channel.ask(command)
        except Refused as refused:
            log.error("BGP: ExaBGP takes this not, see its log: %s", refused)
            self._outbox.refused(order, time.monotonic())
        else:
            self._outbox.landed(order, time.monotonic())
        self._notify()

    # --- time ---

    async def _keep_time(self) -> None:
        """Ends what has lasted long enough: stale paths, the wait for the peers, the wait for ExaBGP."""
        while True:
            now_s = time.monotonic()
            self._moved |= self._rib.expire(now_s)
            waits = [self._rib.deadline(), self._give_up(now_s), self._tell_once(now_s)]
            self._post()
            await self._until(self._tick, min((wait for wait in waits if wait is not None), default=None))

    def _give_up(self, now_s: float) -> float | None:
        """Without ExaBGP a peer's routes are kept for its restart time, or its hold time where it has none."""
        if self._lost_s is None or self._meant is None:
            return None
        waits = []
        for peer in self._meant[0].peers:
            until_s = self._lost_s + (peer.restart_time_s or peer.hold_time_s or _DEFAULT_HOLD_S)
            if until_s > now_s:
                waits.append(until_s)
            else:
                self._moved |= self._rib.take(Down(peer=peer.address, reason="ExaBGP is gone"), now_s)
        return min(waits, default=None)

    def _tell_once(self, now_s: float) -> float | None:
        if self._has_told or self._meant is None:
            return None
        until_s = self._start_s + TOLD_MOST_S
        if self._rib.waiting() and now_s < until_s:
            return until_s
        self._has_told = True
        self._post()
        self._tell()
        return None


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _shortest_hold(topology: Topology) -> int:
    """Seconds; peers without one (0) don't count."""
    return min((peer.hold_time_s for peer in topology.peers if peer.hold_time_s), default=_DEFAULT_HOLD_S)


def _telling(peers: list[Peer]) -> str:
    """The address by which ExaBGP picks out the fewest neighbors: it looks for it anywhere in their names."""
    names = [f"neighbor {peer.address} local-ip {peer.local_address} " for peer in peers]
    return min((peer.address for peer in peers), key=lambda address: sum(address in name for name in names))
