"""What is said of sessions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.bgp.messages import Connected, Down, Neighbor, Notified, Up
from calipy.bgp.standings import Standing, Standings
from tests.unit.bgp.held import held

PEER, OTHER = "10.9.0.2", "10.9.0.3"


def neighbor(state: str, duration_s: int = 0, peer: str = PEER) -> Neighbor:
    return Neighbor(
        peer=peer,
        local_address="10.9.0.1",
        as_number=1,
        local_as=1,
        state=state,
        duration_s=duration_s,
    )


def test_a_session_is_down_since_the_start_until_something_is_heard() -> None:
    assert Standings(10.0).of(PEER) == Standing("down", 10.0, "no session yet")


def test_attempts_that_fail_do_not_make_it_younger() -> None:
    standings = Standings(0.0)
    standings.take(Down(peer=PEER, reason="closing connection"), 10.0)
    standings.take(Down(peer=PEER, reason="outgoing connection refused"), 20.0)
    assert standings.of(PEER) == Standing("down", 10.0, "outgoing connection refused")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", "bad peer AS"), ("k.\ufffd^", "bad peer AS"), ("\x00\x1b[31m", "bad peer AS"), ("ask me", "ask me")],
)
def test_a_notification_is_shown_in_words(text: str, shown: str) -> None:
    standings = Standings(0.0)
    standings.take(Notified(peer=PEER, direction="received", code=2, subcode=2, text=text), 3.0)
    standings.take(Down(peer=PEER, reason="peer reset"), 3.0)
    assert standings.of(PEER).reason == f"the peer sent NOTIFICATION 2/2 {shown}"


def test_a_notification_says_more_than_exabgps_reason() -> None:
    standings = Standings(0.0)
    standings.take(Connected(peer=PEER), 1.0)
    assert standings.of(PEER).state == "connected"
    standings.take(Up(peer=PEER, router_id=""), 2.0)
    assert standings.up() == {PEER}
    standings.take(Notified(peer=PEER, direction="received", code=6, subcode=2, text="Administrative Shutdown"), 3.0)
    standings.take(Down(peer=PEER, reason="peer reset"), 3.0)
    assert standings.of(PEER) == Standing("down", 3.0, "the peer sent NOTIFICATION 6/2 Administrative Shutdown")
    standings.take(Up(peer=PEER, router_id=""), 4.0)
    standings.take(Down(peer=PEER, reason="closing connection"), 5.0)
    assert standings.of(PEER).reason == "closing connection"


def test_after_a_loss_the_same_session_is_as_old_as_before_and_another_is_new() -> None:
    standings = Standings(0.0)
    standings.take(Up(peer=PEER, router_id=""), 100.25)
    standings.lost("ExaBGP doesn't answer", 200.0)
    assert standings.of(PEER) == Standing("down", 200.0, "ExaBGP doesn't answer")
    assert standings.found([neighbor("ESTABLISHED", 100)], 201.0) == {PEER}
    assert standings.of(PEER) == Standing("up", 100.25)

    standings.lost("ExaBGP doesn't answer", 300.0)
    assert standings.found([neighbor("ESTABLISHED", 3)], 310.0) == set()
    assert standings.of(PEER) == Standing("up", 307.0)


def test_a_session_is_not_taken_for_one_that_came_up_just_before_the_loss() -> None:
    """ExaBGP was killed in the session's second second, and had another in the next: what it has told is not all."""
    standings = Standings(0.0)
    standings.take(Up(peer=PEER, router_id=""), 7.2)
    standings.lost("ExaBGP doesn't answer", 8.7)
    assert standings.found([neighbor("ESTABLISHED", 1)], 9.6) == set()


def test_a_session_in_its_first_second_is_up_whatever_exabgp_calls_it() -> None:
    standings = Standings(0.0)
    standings.found([neighbor("ESTABLISHED", 0)], 5.0)
    assert standings.of(PEER) == Standing("up", 5.0)
    standings.found([neighbor("IDLE")], 6.0)
    assert standings.of(PEER) == Standing("down", 6.0, "ExaBGP has no session with it")


def test_a_session_with_a_peer_that_exabgp_does_not_have_is_down() -> None:
    standings = Standings(0.0)
    standings.take(Up(peer=PEER, router_id=""), 1.0)
    standings.found([neighbor("ESTABLISHED", 1, OTHER)], 2.0)
    assert standings.up() == {OTHER}


def test_what_a_lost_exabgp_said_is_no_reason_of_a_later_end() -> None:
    standings = Standings(0.0)
    standings.take(Up(peer=PEER, router_id=""), 1.0)
    standings.take(Notified(peer=PEER, direction="received", code=6, subcode=2), 2.0)
    standings.lost("ExaBGP doesn't answer", 2.0)
    standings.take(Up(peer=PEER, router_id=""), 3.0)
    standings.take(Down(peer=PEER, reason="closing connection"), 4.0)
    assert standings.of(PEER).reason == "closing connection"


def test_a_peer_that_was_taken_out_counts_until_exabgp_has_let_it_go() -> None:
    standings = Standings(0.0)
    standings.take(Up(peer=PEER, router_id=""), 1.0)
    standings.want(())
    assert standings.up() == {PEER}
    standings.take(Down(peer=PEER, reason="peer reset"), 2.0)
    assert standings.of(PEER) == Standing("down", 0.0, "no session yet")


MESSAGES = st.sampled_from([PEER, OTHER]).flatmap(
    lambda peer: st.sampled_from(
        [
            Connected(peer=peer),
            Up(peer=peer, router_id=""),
            Notified(peer=peer, direction="received", code=6, subcode=2),
            Down(peer=peer, reason="closing connection"),
        ]
    )
)
STEPS = st.lists(
    st.one_of(
        MESSAGES,
        st.sets(st.sampled_from([PEER, OTHER])),
        st.just("lost"),
        st.builds(neighbor, st.sampled_from(["IDLE", "ESTABLISHED"]), st.just(1), st.sampled_from([PEER, OTHER])),
    ),
    max_size=20,
)


@given(steps=STEPS, last=st.sampled_from(["lost", "down", "found"]))
def test_nothing_is_held_of_peers_that_have_left(steps: list[object], last: str) -> None:
    standings = Standings(0.0)
    for now_s, step in enumerate(steps):
        match step:
            case "lost":
                standings.lost("ExaBGP doesn't answer", now_s)
            case set():
                standings.want(step)
            case Neighbor():
                standings.found([step], now_s)
            case _:
                standings.take(step, now_s)  # type: ignore[arg-type]
    standings.want(())
    for peer in (PEER, OTHER) if last == "down" else ():
        standings.take(Down(peer=peer, reason="peer reset"), 100.0)
    if last == "lost":
        standings.lost("ExaBGP doesn't answer", 100.0)
    elif last == "found":
        standings.found((), 100.0)
    assert held(standings) == 0
