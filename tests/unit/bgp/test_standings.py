"""What is said of sessions."""

from __future__ import annotations

import pytest

from calipy.bgp.messages import Connected, Down, Neighbor, Notified, Up
from calipy.bgp.standings import Standing, Standings

PEER = "10.9.0.2"


def neighbor(state: str, duration_s: int = 0) -> Neighbor:
    return Neighbor(
        peer=PEER,
        local_address="10.9.0.1",
        as_number=1,
        local_as=1,
        up=duration_s > 0,
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
