"""What ExaBGP writes unasked: real lines, and lines that went wrong."""

from __future__ import annotations

import pytest

from calipy.bgp.event_lines import decode
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
from tests.unit.bgp.lines import EVENTS, variants

V4, V6 = "10.9.0.2", "fd00:9::2"


def opened(peer: str, **others: object) -> Opened:
    return Opened(peer=peer, router_id="10.9.0.2", as_number=64512, **{"hold_time_s": 9, **others})  # type: ignore[arg-type]


def sent(code: int, subcode: int) -> tuple[Message, ...]:
    return (
        Notified(peer=V4, direction="sent", code=code, subcode=subcode),
        Down(peer=V4, reason=f"notification sent ({code},{subcode})"),
    )


def calico(prefix: str) -> Path:
    return Path(
        prefix=prefix,
        next_hop=V4,
        local_preference=2147482623,
        communities=("65000:1", "65000:2", "65000:1:2"),
    )


SEEN: dict[str, tuple[Message, ...]] = {
    "connected": (Connected(peer=V4),),
    "open of ExaBGP that has started": (opened(V4, restart_time_s=20, restarting=True, families_kept=(4,)),),
    "open of ExaBGP that goes on": (opened(V4, restart_time_s=20, families_kept=(4,)),),
    "open without graceful restart": (opened(V4),),
    "open of BIRD that goes on": (opened(V6, hold_time_s=240, restart_time_s=120),),
    "open of BIRD in recovery": (opened(V6, hold_time_s=240, restart_time_s=120, restarting=True, families_kept=(6,)),),
    "up": (Up(peer=V4, router_id="10.9.0.1"),),
    "update with communities": (Updated(peer=V4, announced=(calico("10.1.0.0/26"), calico("10.1.0.64/26"))),),
    "update of a reflector": (
        Updated(
            peer=V4,
            announced=(
                Path(
                    prefix="10.2.0.0/26",
                    next_hop=V4,
                    as_path=((65100,), (65101,)),
                    local_preference=100,
                    originator_id="10.9.0.7",
                    cluster_list=("1.1.1.1", "2.2.2.2"),
                ),
            ),
        ),
    ),
    "update of BIRD": (
        Updated(
            peer=V4,
            announced=(
                Path(
                    prefix="10.50.0.0/24",
                    next_hop=V4,
                    as_path=((65010,),),
                    med=7,
                    local_preference=100,
                    communities=("65000:9",),
                ),
            ),
        ),
    ),
    "update over IPv6 from another AS": (
        Updated(peer=V6, announced=(Path(prefix="fd10::/122", next_hop=V6, as_path=((65001,),)),)),
    ),
    "withdrawal": (Updated(peer=V4, withdrawn=("10.1.0.64/26",)),),
    "withdrawal over IPv6": (Updated(peer=V6, withdrawn=("fd10::40/122",)),),
    "end of RIB": (EndOfRib(peer=V4, family=4),),
    "end of RIB over IPv6": (EndOfRib(peer=V6, family=6),),
    "connection lost": (Down(peer=V4, reason="closing connection"),),
    "hold timer expired": sent(4, 0),
    "session re-opened by us": (
        Down(peer=V4, reason="graceful restarted negotiated, closing without sending any notification"),
    ),
    "wrong AS": sent(2, 2),
    "notification received": (
        Notified(
            peer=V4, direction="received", code=6, subcode=4, text='Shutdown Communication: "Administrative Reset"'
        ),
    ),
    "notification of BIRD": (Notified(peer=V4, direction="received", code=6, subcode=2),),
    "down after a notification": (Down(peer=V4, reason="notification received (6,4)"),),
    "ExaBGP shutting down, a session": (Down(peer=V4, reason="stop, message [shutting down]"),),
    "ExaBGP shutting down": (Shutdown(),),
}


def test_every_line_that_was_recorded_has_its_meaning_written_down() -> None:
    assert EVENTS.keys() == SEEN.keys()


@pytest.mark.parametrize("name", SEEN)
def test_a_line_of_exabgp_reads_as_what_happened(name: str) -> None:
    assert decode(EVENTS[name]) == SEEN[name]


def test_events_that_are_not_followed_say_nothing() -> None:
    assert decode(b'{ "type": "keepalive", "neighbor": { "address": { "peer": "10.9.0.2" } } }') == ()
    assert decode(EVENTS["open without graceful restart"].replace(b'"receive"', b'"send"')) == ()
    assert decode(EVENTS["withdrawal"].replace(b"ipv4 unicast", b"ipv4 flow")) == ()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"done",
        b"\xff",
        b"[1]",
        b'{ "type": "state", "neighbor": 3 }',
        b'{ "type": "update" }',
        EVENTS["up"].replace(b'"10.9.0.2"', b'"nobody"'),
        EVENTS["up"].replace(b'"up"', b'"upside down"'),
        EVENTS["open without graceful restart"].replace(b'"open": {', b'"opened": {'),
        EVENTS["open of BIRD that goes on"].replace(b'"time": 120', b'"time": "soon"'),
        EVENTS["notification of BIRD"].replace(b'"notification": {', b'"said": {'),
        EVENTS["update of BIRD"].replace(b"10.50.0.0/24", b"10.50.0.0/42"),
        EVENTS["update of BIRD"].replace(b"10.50.0.0/24", b"fd50::/64"),
        EVENTS["update of BIRD"].replace(b'"10.9.0.2": [', b'"nowhere": ['),
        EVENTS["update of BIRD"].replace(b'"10.9.0.2": [', b'"fd00::2": ['),
        EVENTS["update of BIRD"].replace(b'{"0": {', b'{"first": {'),
        EVENTS["update of BIRD"].replace(b'"igp"', b'"ibgp"'),
        EVENTS["withdrawal"].replace(b"10.1.0.64/26", b"10.1.0.64/fd"),
    ],
)
def test_a_wrong_line_is_refused_as_a_whole(line: bytes) -> None:
    (refused,) = decode(line)
    assert isinstance(refused, Unreadable)
    assert refused.reason
    assert line.startswith(refused.text.encode("utf-8")) or b"\xff" in line


@pytest.mark.parametrize("name", SEEN)
def test_no_wrong_value_in_any_field_ends_anything(name: str) -> None:
    for line in variants(EVENTS[name]):
        assert isinstance(decode(line), tuple)


def test_of_two_next_hops_the_global_one_counts() -> None:
    line = EVENTS["update over IPv6 from another AS"]
    both = line.replace(
        b'"fd00:9::2": [ { "nlri": "fd10::/122" } ]',
        b'"fd00:9::2": [ { "nlri": "fd10::/122" } ], "fe80::2": [ { "nlri": "fd10::/122" } ]',
    )
    assert both != line
    assert decode(both) == SEEN["update over IPv6 from another AS"]


def test_an_as_set_is_one_hop() -> None:
    line = EVENTS["update of BIRD"].replace(
        b'{"0": {"element": "as-sequence", "value": [65010]}}',
        b'{"0": {"element": "as-sequence", "value": [65010, 65011]}, "1": {"element": "as-set", "value": [1, 2]}}',
    )
    (update,) = decode(line)
    assert isinstance(update, Updated)
    assert update.announced[0].as_path == ((65010,), (65011,), (1, 2))
