"""The outbox against an ExaBGP that keeps what it is given, and tells it again on each session."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from calipy.bgp.outbox import APART_S, Order, Outbox
from calipy.bgp.peers import Announcement
from tests.effort import examples
from tests.unit.bgp.held import held

PEERS = ("10.9.0.2", "10.9.0.3")
PREFIXES = ("10.1.0.0/26", "10.1.0.64/26", "10.1.0.128/26")


def announcement(prefix: str, metric: int = 1024) -> Announcement:
    return Announcement(prefix=prefix, next_hop="10.9.0.1", local_preference=2147483647 - metric)


class ExaBGP:
    """Its memory of what it was given, the peers' tables, and when a prefix last changed on the way to a peer."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.given: dict[str, dict[str, Announcement]] = {peer: {} for peer in PEERS}
        self.tables: dict[str, dict[str, Announcement]] = {}
        self.changed_s: dict[tuple[str, str], float] = {}
        self.desired: dict[str, tuple[Announcement, ...]] = {}
        self.ends: dict[str, int] = {}
        self.refusals = 0
        """So many of the next orders are refused when a part of them is carried out."""
        self.now_s = 100.0

    def want(self, desired: dict[str, tuple[Announcement, ...]]) -> None:
        self.desired = desired
        self.outbox.want(desired)

    def up(self, peer: str) -> None:
        self.tables[peer], self.ends[peer] = dict(self.given[peer]), 0
        for prefix in self.given[peer]:
            self.changed_s[peer, prefix] = self.now_s
        self.outbox.up(peer, self.now_s)

    def down(self, peer: str) -> None:
        if self.tables.pop(peer, None) is not None:
            self.outbox.down(peer)

    def removed_and_added(self, peer: str) -> None:
        self.down(peer)
        self.given[peer] = {}
        self.outbox.gone(peer)

    def agent_restarts(self, desired: dict[str, tuple[Announcement, ...]]) -> None:
        self.outbox = Outbox()
        self.now_s += APART_S
        self.want(desired)
        for peer in self.tables:
            self.ends[peer] = 0
            self.outbox.up(peer, self.now_s)
            self.outbox.found(peer, self.given[peer])

    def obey(self, order: Order) -> None:
        table, given = self.tables[order.peer], self.given[order.peer]
        for new in order.announce:
            if given.get(new.prefix) != new:
                self._change(order.peer, new.prefix)
            given[new.prefix] = table[new.prefix] = new
        for prefix in order.withdraw:
            if given.pop(prefix, None) is not None:
                self._change(order.peer, prefix)
            table.pop(prefix, None)
        if order.end_of_rib:
            self.ends[order.peer] += 1
            assert {new.prefix for new in self.desired[order.peer]} <= table.keys(), "End-of-RIB before all was told"

    def _change(self, peer: str, prefix: str) -> None:
        last_s = self.changed_s.get((peer, prefix), 0.0)
        assert self.now_s - last_s >= APART_S, f"{peer} {prefix}: changed twice in {self.now_s - last_s:g} s"
        self.changed_s[peer, prefix] = self.now_s

    def refuse(self, orders: int) -> None:
        self.refusals = orders

    def all_leaves(self) -> None:
        self.want({})
        for peer in PEERS:
            self.removed_and_added(peer)

    def settle(self, for_s: float, refuses: Callable[[], bool] = lambda: False) -> None:
        until_s = self.now_s + for_s
        for _ in range(200):
            while order := self.outbox.next(self.now_s):
                if self.refusals:
                    self.refusals -= 1
                    part = replace(order, end_of_rib=False)
                    self.obey(part if self.refusals else replace(part, withdraw=()))
                    self.outbox.refused(order, self.now_s)
                elif refuses():
                    self.outbox.refused(order, self.now_s)
                else:
                    self.obey(order)
                    self.outbox.landed(order, self.now_s)
            due_s = self.outbox.deadline()
            if due_s is None or due_s > until_s:
                break
            assert due_s > self.now_s, "something is due, and no order comes"
            self.now_s = due_s
        self.now_s = until_s


SETS = st.dictionaries(
    st.sampled_from(PEERS),
    st.lists(st.sampled_from(PREFIXES), unique=True).flatmap(
        lambda prefixes: st.tuples(
            *(st.builds(announcement, st.just(p), st.sampled_from([1024, 1000])) for p in prefixes)
        )
    ),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), SETS),
        st.tuples(st.sampled_from(["up", "down", "removed_and_added"]), st.sampled_from(PEERS)),
        st.tuples(st.just("agent_restarts"), SETS),
        st.tuples(st.just("settle"), st.sampled_from([0.0, 0.3, 0.9, 1.0, 5.0])),
        st.tuples(st.just("refuse"), st.sampled_from([1, 2])),
    ),
    max_size=25,
)


@given(steps=STEPS)
@examples(150)
def test_every_peer_ends_with_what_it_is_to_hear_and_no_prefix_changes_twice_in_a_second(
    steps: list[tuple[str, object]],
) -> None:
    exabgp = ExaBGP()
    for name, argument in steps:
        getattr(exabgp, name)(argument)
    exabgp.refuse(0)
    exabgp.settle(200.0)
    for peer, table in exabgp.tables.items():
        if peer in exabgp.desired:
            assert table == {new.prefix: new for new in exabgp.desired[peer]}
            assert exabgp.ends[peer] == 1
    assert exabgp.outbox.deadline() is None

    exabgp.all_leaves()
    exabgp.settle(APART_S)
    assert held(exabgp.outbox) == 0
    assert exabgp.outbox.deadline() is None


def test_prefixes_that_have_come_and_gone_leave_nothing_behind() -> None:
    exabgp = ExaBGP()
    exabgp.want({PEERS[0]: ()})
    exabgp.up(PEERS[0])
    for prefix in PREFIXES:
        exabgp.want({PEERS[0]: (announcement(prefix),)})
        exabgp.settle(5.0)
    exabgp.want({PEERS[0]: ()})
    exabgp.settle(5.0)
    assert held(exabgp.outbox) == 1, "the peer alone"


def test_a_peer_that_is_back_within_the_second_is_not_told_sooner() -> None:
    exabgp = ExaBGP()
    wanted = {PEERS[0]: (announcement(PREFIXES[0]),)}
    exabgp.want(wanted)
    exabgp.up(PEERS[0])
    exabgp.settle(0.3)
    exabgp.all_leaves()
    exabgp.want(wanted)
    exabgp.up(PEERS[0])
    exabgp.settle(0.0)
    assert exabgp.tables[PEERS[0]] == {}
    exabgp.settle(APART_S)
    assert exabgp.tables[PEERS[0]].keys() == {PREFIXES[0]}


def test_a_route_is_told_again_after_an_order_that_was_refused_when_it_was_withdrawn() -> None:
    exabgp = ExaBGP()
    wanted = {PEERS[0]: (announcement(PREFIXES[0]),)}
    exabgp.want(wanted)
    exabgp.up(PEERS[0])
    exabgp.settle(5.0)
    exabgp.want({PEERS[0]: ()})
    exabgp.refuse(2)
    exabgp.settle(0.0)
    assert exabgp.tables[PEERS[0]] == {}
    exabgp.want(wanted)
    exabgp.settle(10.0)
    assert exabgp.tables[PEERS[0]].keys() == {PREFIXES[0]}


def test_an_order_that_lands_when_its_peer_is_forgotten_counts() -> None:
    outbox = Outbox()
    outbox.want({PEERS[0]: (announcement(PREFIXES[0]),)})
    outbox.up(PEERS[0], 0.0)
    order = outbox.next(0.0)
    assert order is not None
    outbox.want({})
    outbox.gone(PEERS[0])
    assert outbox.addresses() == frozenset()
    outbox.landed(order, 0.0)
    assert outbox.announced(PEERS[0]) == 1


def test_a_refused_order_is_tried_again_ever_less_often() -> None:
    exabgp = ExaBGP()
    exabgp.want({PEERS[0]: (announcement(PREFIXES[0]),)})
    exabgp.up(PEERS[0])
    tries: list[float] = []

    def refuses() -> bool:
        tries.append(exabgp.now_s - 100.0)
        return len(tries) < 4

    exabgp.settle(30.0, refuses)
    assert tries == [0.0, 1.0, 3.0, 7.0]
    assert exabgp.tables[PEERS[0]].keys() == {PREFIXES[0]}
    assert exabgp.ends[PEERS[0]] == 1


def test_a_peer_that_is_not_configured_is_told_nothing() -> None:
    outbox = Outbox()
    outbox.want({})
    outbox.up(PEERS[0], 0.0)
    assert outbox.next(0.0) is None
    outbox.want({PEERS[0]: (announcement(PREFIXES[0]),)})
    order = outbox.next(0.0)
    assert order is not None
    assert order.end_of_rib


def test_peers_that_are_to_go_hear_that_all_they_were_told_is_over() -> None:
    outbox = Outbox()
    outbox.want({"10.9.0.2": (), "10.9.0.3": ()})
    for address in ("10.9.0.2", "10.9.0.3", "10.9.0.4"):
        outbox.up(address, 0.0)
        outbox.found(address, ["10.1.0.64/26", "10.1.0.0/26"])
    outbox.want({"10.9.0.2": ()})
    outbox.down("10.9.0.4")
    (order,) = outbox.farewells()
    assert (order.peer, order.withdraw, order.announce) == ("10.9.0.3", ("10.1.0.0/26", "10.1.0.64/26"), ())
    outbox.landed(order, 1.0)
    assert outbox.farewells() == ()
