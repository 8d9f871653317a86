"""The decision process and graceful restart, as an operator would tell them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from calipy.bgp.messages import (
    Connected,
    Down,
    EndOfRib,
    Message,
    Notified,
    Opened,
    Path,
    Shutdown,
    Unreadable,
    Up,
    Updated,
)
from calipy.bgp.peers import Peer, Topology
from calipy.bgp.rib import Rib
from calipy.model.routes import LearnedRoute
from tests.effort import examples

P, Q, R, X = "10.0.0.2", "10.0.0.3", "10.0.0.4", "192.0.2.1"
"""Peers: three of our own AS, one of another."""
NET = "10.1.0.0/26"
LOST = "closing connection"


def peer(address: str, **others: Any) -> Peer:
    settings = {"as_number": 65001 if address == X else 64512, "local_address": "10.0.0.1", "local_as": 64512, **others}
    return Peer(name=f"Peer_{address}", address=address, **settings)


TOPOLOGY = Topology(node="a", router_id="10.0.0.1", peers=tuple(map(peer, (P, Q, R, X))))


def path(via: str, prefix: str = NET, **others: Any) -> Path:
    """As `via` announces it: from another AS with that AS in its path."""
    return Path(prefix=prefix, next_hop=via, **{"as_path": ((65001,),) if via == X else (), **others})


def says(via: str, *paths: Path, gone: tuple[str, ...] = ()) -> Updated:
    return Updated(peer=via, announced=paths, withdrawn=gone)


def rib(*messages: Message, topology: Topology = TOPOLOGY) -> Rib:
    made = Rib()
    made.configure(topology, 0.0)
    for message in messages:
        made.take(message, 0.0)
    return made


def session(via: str, *paths: Path, restart_s: int | None = 120, kept: tuple[int, ...] = (4,)) -> tuple[Message, ...]:
    """The start of one, up to End-of-RIB."""
    opened = Opened(
        peer=via, router_id=via, as_number=64512, hold_time_s=90, restart_time_s=restart_s, families_kept=kept
    )
    return (
        Connected(peer=via),
        opened,
        Up(peer=via, router_id="10.0.0.1"),
        says(via, *paths),
        EndOfRib(peer=via, family=4),
    )


def set_of(*hops: int) -> tuple[tuple[int, ...], ...]:
    return tuple((hop,) for hop in hops)


@pytest.mark.parametrize("vias", [(P,), (P, Q, R)])
def test_paths_that_are_equal_are_joined(vias: tuple[str, ...]) -> None:
    route = rib(*(says(via, path(via)) for via in reversed(vias))).outcome(NET)
    assert route == LearnedRoute(prefix=NET, next_hops=vias, peers=vias)


BETTER: dict[str, tuple[Path, Path]] = {
    "a greater local preference": (path(P, local_preference=200, as_path=set_of(1, 2)), path(Q, local_preference=150)),
    "a local preference above the default": (path(P, local_preference=101, as_path=set_of(1)), path(Q)),
    "none said = 100, against less": (path(P, as_path=set_of(1)), path(Q, local_preference=99)),
    "the default against a lesser one from outside": (path(X), path(P, local_preference=99)),
    "from outside a preference doesn't count": (path(P), path(X, local_preference=1000)),
    "a shorter AS path": (path(P, as_path=set_of(1), origin="incomplete"), path(Q, as_path=set_of(1, 2))),
    "an AS set is one hop": (path(P, as_path=((1, 2, 3),)), path(Q, as_path=set_of(1, 2))),
    "origin igp before egp": (path(P, med=9), path(Q, origin="egp")),
    "origin egp before incomplete": (path(P, origin="egp"), path(Q, origin="incomplete")),
    "a lower MED of the same neighbour": (path(P, as_path=set_of(1, 2), med=5), path(Q, as_path=set_of(1, 3), med=6)),
    "no MED is the lowest": (path(P, as_path=set_of(1)), path(Q, as_path=set_of(1), med=1)),
    "the greatest MEDs are compared too": (path(P, med=2**32 - 2), path(Q, med=2**32 - 1)),
    "external before internal": (path(X, med=5), path(P, as_path=set_of(65002))),
    "MED before external": (path(P, as_path=set_of(65001), med=4), path(X, med=5)),
}


@pytest.mark.parametrize("rule", BETTER)
def test_one_path_is_better_than_another(rule: str) -> None:
    better, worse = BETTER[rule]
    expected = (better.next_hop,)
    for first, second in ((better, worse), (worse, better)):
        route = rib(says(first.next_hop, first), says(second.next_hop, second)).outcome(NET)
        assert route is not None
        assert (route.next_hops, route.peers) == (expected, expected)


@pytest.mark.parametrize(
    "pair",
    [
        (path(P, as_path=set_of(1), med=5), path(Q, as_path=set_of(2), med=6)),
        (path(P, cluster_list=("1.1.1.1",)), path(Q)),
        (path(P, communities=("1:1",)), path(Q)),
        (path(P, local_preference=100), path(Q)),
    ],
    ids=["MED of different neighbours", "cluster list", "communities", "the default said or not"],
)
def test_these_differences_decide_nothing(pair: tuple[Path, Path]) -> None:
    route = rib(*(says(one.next_hop, one) for one in pair)).outcome(NET)
    assert route is not None
    assert route.next_hops == (P, Q)


def test_med_of_three_doesnt_depend_on_who_is_compared_first() -> None:
    paths = [
        path(P, as_path=set_of(1, 9), med=10),
        path(Q, as_path=set_of(2, 9), med=20),
        path(R, as_path=set_of(1, 8), med=5),
    ]
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        route = rib(*(says(paths[i].next_hop, paths[i]) for i in order)).outcome(NET)
        assert route is not None
        assert route.next_hops == (Q, R)


UNUSABLE = {
    "own AS in the path": (path(X, as_path=set_of(65001, 64512)), {}, False),
    "own AS in a set of the path": (path(X, as_path=((65001,), (1, 64512))), {}, False),
    "own AS once, allowed once": (path(X, as_path=set_of(65001, 64512)), {"own_as_allowed": 1}, True),
    "own AS twice, allowed once": (path(X, as_path=set_of(65001, 64512, 64512)), {"own_as_allowed": 1}, False),
    "own router ID as originator": (path(P, originator_id="10.0.0.1"), {}, False),
    "another originator": (path(P, originator_id="10.0.0.9"), {}, True),
    "own address as next hop": (replace(path(P), next_hop="10.0.0.1"), {}, False),
    "a third party's next hop": (replace(path(P), next_hop="10.0.0.77"), {}, True),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_paths_that_lead_back_to_us_are_not_used(case: str) -> None:
    one, others, usable = UNUSABLE[case]
    via = X if one.as_path else P
    made = rib(says(via, one), topology=replace(TOPOLOGY, peers=(peer(via, **others),)))
    assert (made.outcome(NET) is not None) == usable
    assert (made.prefixes, made.received(via)) == ({NET}, 1)


def test_without_a_router_id_an_originator_is_nobody_known() -> None:
    assert rib(says(P, path(P)), topology=replace(TOPOLOGY, router_id="")).outcome(NET) is not None


@pytest.mark.parametrize(
    ("preference", "metric"),
    [
        (2147483647 - 1024, 1024),
        (2147483647 - 1, 1),
        (2**30, 2**30 - 1),
        (2**30 - 1, 1024),
        (2147483647, 1024),
        (100, 1024),
        (None, 1024),
    ],
)
def test_a_metric_comes_out_of_calicos_preferences(preference: int | None, metric: int) -> None:
    route = rib(says(P, path(P, local_preference=preference))).outcome(NET)
    assert route is not None
    assert route.metric == metric


def test_a_message_names_the_prefixes_that_may_have_moved() -> None:
    made = rib()
    other = path(P, "10.2.0.0/26")
    assert made.take(says(P, path(P), other), 0.0) == {NET, other.prefix}
    assert made.take(says(P, path(P)), 0.0) == frozenset()
    assert made.take(says(P, path(P, med=1)), 0.0) == {NET}
    assert made.take(says(P, gone=(NET, "10.9.0.0/26")), 0.0) == {NET}
    assert made.prefixes == {other.prefix}
    for silent in (
        Unreadable("{", "it ends"),
        Connected(peer=P),
        Notified(peer=P, direction="sent", code=6, subcode=2),
    ):
        assert made.take(silent, 0.0) == frozenset()


def test_a_peer_that_isnt_configured_says_nothing() -> None:
    made = rib(*session("10.0.0.99", path("10.0.0.99")))
    assert made.prefixes == frozenset()
    assert made.received("10.0.0.99") == 0
    assert not made.stale("10.0.0.99")


def test_a_peer_that_is_gone_takes_its_paths_along() -> None:
    made = rib(*session(P, path(P)), *session(Q, path(Q)), Down(peer=P, reason=LOST))
    assert made.stale(P)
    assert made.configure(replace(TOPOLOGY, peers=TOPOLOGY.peers[1:]), 1.0) == {NET}
    route = made.outcome(NET)
    assert route is not None
    assert route.peers == (Q,)
    assert made.deadline() is None
    assert made.configure(replace(TOPOLOGY, peers=()), 2.0) == {NET}
    assert made.prefixes == frozenset()


def test_a_changed_configuration_is_applied_to_what_is_there() -> None:
    looped = path(X, as_path=set_of(65001, 64512))
    made = rib(says(X, looped), says(P, path(P, "10.2.0.0/26")))
    peers = tuple(replace(p, own_as_allowed=1) if p.address == X else p for p in TOPOLOGY.peers)
    assert made.configure(replace(TOPOLOGY, peers=peers), 1.0) == {NET}
    assert made.outcome(NET) is not None
    assert made.configure(replace(TOPOLOGY, peers=peers), 2.0) == frozenset()
    assert made.configure(replace(TOPOLOGY, peers=peers, router_id="10.0.0.7"), 3.0) == made.prefixes


def test_a_fresh_rib_waits_for_everybody() -> None:
    made = rib()
    assert made.waiting() == {f"Peer_{address}" for address in (P, Q, R, X)}
    for message in session(P):
        made.take(message, 0.0)
    assert made.waiting() == {f"Peer_{address}" for address in (Q, R, X)}
    made.take(Down(peer=P, reason=LOST), 0.0)
    assert f"Peer_{P}" not in made.waiting()


ENDS = {
    "connection lost": (LOST, True),
    "we re-open it": ("graceful restarted negotiated, closing without sending any notification", True),
    "our ExaBGP ends": ("stop, message [shutting down]", True),
    "hold timer": ("notification sent (4,0)", False),
    "told to cease": ("notification received (6,4)", False),
    "peer no longer configured": ("stop, message [removed]", False),
    "collision": ("closing outgoing connection as we have another incoming on with higher router-id", False),
    "no reason": ("", False),
}


@pytest.mark.parametrize("end", ENDS)
def test_only_a_silent_end_leaves_paths_behind(end: str) -> None:
    reason, kept = ENDS[end]
    made = rib(*session(P, path(P), restart_s=20))
    assert made.take(Down(peer=P, reason=reason), 100.0) == (frozenset() if kept else {NET})
    assert (made.outcome(NET) is not None, made.stale(P)) == (kept, kept)
    assert made.deadline() == (120.0 if kept else None)


@pytest.mark.parametrize(
    ("theirs", "ours", "kept"), [(20, 120, True), (None, 120, False), (0, 120, False), (20, 0, False)]
)
def test_both_sides_must_do_graceful_restart(theirs: int | None, ours: int, kept: bool) -> None:
    made = rib(
        *session(P, path(P), restart_s=theirs), topology=replace(TOPOLOGY, peers=(peer(P, restart_time_s=ours),))
    )
    made.take(Down(peer=P, reason=LOST), 0.0)
    assert made.stale(P) == kept


def test_stale_paths_end_when_their_time_is_over() -> None:
    made = rib(*session(P, path(P), restart_s=20), *session(Q, path(Q, "10.2.0.0/26"), restart_s=30))
    made.take(Down(peer=P, reason=LOST), 100.0)
    made.take(Down(peer=Q, reason=LOST), 100.0)
    assert made.expire(119.9) == frozenset()
    assert made.expire(120.0) == {NET}
    assert made.deadline() == 130.0
    assert made.expire(500.0) == {"10.2.0.0/26"}
    assert made.deadline() is None


def test_end_of_rib_ends_what_wasnt_said_again() -> None:
    again, not_again = path(P), path(P, "10.2.0.0/26")
    made = rib(*session(P, again, not_again), Down(peer=P, reason=LOST))
    connected, opened, up, _, end = session(P)
    for message in (connected, opened, up):
        assert made.take(message, 5.0) == frozenset()
    assert made.take(says(P, again), 5.0) == frozenset()
    assert made.stale(P)
    assert made.take(end, 5.0) == {not_again.prefix}
    assert (made.stale(P), made.deadline(), made.prefixes) == (False, None, {NET})


def test_a_failed_attempt_changes_nothing() -> None:
    made = rib(*session(P, path(P), restart_s=20))
    made.take(Down(peer=P, reason=LOST), 100.0)
    for reason in (LOST, "notification received (6,7)", "notification sent (2,2)"):
        assert made.take(Connected(peer=P), 110.0) == frozenset()
        assert made.take(Down(peer=P, reason=reason), 110.0) == frozenset()
    assert made.deadline() == 120.0


def test_a_second_end_before_end_of_rib_starts_no_second_period() -> None:
    old, new = path(P), path(P, "10.2.0.0/26")
    made = rib(*session(P, old, restart_s=20))
    made.take(Down(peer=P, reason=LOST), 100.0)
    for message in session(P, new, restart_s=20)[:-1]:
        made.take(message, 110.0)
    assert made.take(Down(peer=P, reason=LOST), 111.0) == {old.prefix}
    assert made.expire(130.9) == frozenset()
    assert made.expire(131.0) == {new.prefix}


def test_the_wait_for_end_of_rib_has_an_end_too() -> None:
    made = rib(*session(P, path(P), restart_s=20))
    made.take(Down(peer=P, reason=LOST), 100.0)
    for message in session(P, restart_s=20)[:-1]:
        made.take(message, 119.0)
    assert made.deadline() == 139.0
    assert made.expire(139.0) == {NET}


@pytest.mark.parametrize(
    ("reason", "restart_s", "kept", "stays"),
    [
        (LOST, 20, (4,), True),
        (LOST, 20, (), False),
        (LOST, 20, (6,), False),
        (LOST, None, (), False),
        ("graceful restarted negotiated, closing without sending any notification", 20, (), True),
        ("stop, message [shutting down]", None, (), True),
    ],
)
def test_a_peer_that_lost_its_forwarding_voids_what_it_had_said(
    reason: str, restart_s: int | None, kept: tuple[int, ...], stays: bool
) -> None:
    """But where our own side had closed, the peer's restart flags say nothing about what it had said."""
    made = rib(*session(P, path(P), restart_s=20), Down(peer=P, reason=reason))
    _, opened, up, *_ = session(P, restart_s=restart_s, kept=kept)
    made.take(opened, 1.0)
    assert made.take(up, 1.0) == (frozenset() if stays else {NET})
    assert made.stale(P) == stays


def test_exabgps_end_is_the_end_of_all_sessions() -> None:
    made = rib(*session(P, path(P), restart_s=20), *session(Q, path(Q, "10.2.0.0/26"), restart_s=None))
    assert made.take(Shutdown(), 100.0) == {"10.2.0.0/26"}
    assert (made.stale(P), made.deadline()) == (True, 120.0)
    assert made.take(Shutdown(), 110.0) == frozenset()
    assert made.deadline() == 120.0


def test_a_session_that_said_nothing_leaves_nothing_to_wait_for() -> None:
    made = rib(*session(P), Down(peer=P, reason=LOST))
    assert (made.stale(P), made.deadline()) == (False, None)


def test_after_exabgps_end_a_peers_restart_flags_say_nothing() -> None:
    made = rib(*session(P, path(P)), Shutdown(), *session(P, kept=())[:3])
    assert made.stale(P)


def test_a_session_whose_start_was_missed_counts_as_up() -> None:
    made = rib(says(P, path(P)))
    assert made.take(Down(peer=P, reason=LOST), 1.0) == {NET}


PREFIXES = ("10.1.0.0/26", "10.2.0.0/26")
PATHS = st.builds(
    path,
    st.just(P),
    st.sampled_from(PREFIXES),
    as_path=st.sampled_from([(), set_of(1), set_of(2), set_of(1, 2), set_of(64512), ((1, 2),)]),
    med=st.sampled_from([None, 0, 5]),
    local_preference=st.sampled_from([None, 100, 2147482623]),
    origin=st.sampled_from(["igp", "incomplete"]),
)
TOLD = st.lists(st.tuples(st.sampled_from([P, Q, R, X]), PATHS), max_size=8)


def outcomes(made: Rib) -> dict[str, LearnedRoute | None]:
    return {prefix: made.outcome(prefix) for prefix in PREFIXES}


def updates(told: list[tuple[str, Path]]) -> list[Updated]:
    """One for each peer and prefix, its last."""
    last = {(via, one.prefix): replace(one, next_hop=via) for via, one in told}
    return [says(via, one) for (via, _), one in last.items()]


@given(TOLD, st.randoms(use_true_random=False))
@examples(60)
def test_the_order_of_the_peers_decides_nothing(told: list[tuple[str, Path]], random: Any) -> None:
    one, other = updates(told), updates(told)
    random.shuffle(other)
    assert outcomes(rib(*one)) == outcomes(rib(*other))


@given(TOLD)
@examples(30)
def test_what_is_withdrawn_leaves_nothing(told: list[tuple[str, Path]]) -> None:
    made = rib(*updates(told))
    for update in updates(told):
        made.take(says(update.peer, gone=tuple(one.prefix for one in update.announced)), 0.0)
    assert (made.prefixes, outcomes(made)) == (frozenset(), dict.fromkeys(PREFIXES))
    assert [made.received(via) for via in (P, Q, R, X)] == [0, 0, 0, 0]


@given(TOLD, st.sampled_from([P, Q, R, X]))
@examples(30)
def test_after_a_restart_that_says_the_same_all_is_as_before(told: list[tuple[str, Path]], who: str) -> None:
    made = rib(*session(who), *updates(told))
    before = outcomes(made)
    steps = [Down(peer=who, reason=LOST), *session(who)[:3], *updates(told), EndOfRib(peer=who, family=4)]
    for step in steps:
        made.take(step, 1.0)
        assert outcomes(made) == before
    assert not made.stale(who)
