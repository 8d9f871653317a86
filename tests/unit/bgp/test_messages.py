"""ExaBGP's language: real lines in, commands out."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from calipy.bgp.messages import (
    Connected,
    Done,
    Down,
    EndOfRib,
    Failed,
    Message,
    Neighbor,
    Neighbors,
    Notified,
    Opened,
    Other,
    Path,
    Shutdown,
    Up,
    Updated,
    announce_commands,
    decode,
    end_of_rib_command,
    withdraw_commands,
)
from calipy.bgp.peers import Announcement

V4, V6 = "10.9.0.2", "fd00:9::2"


def lines() -> dict[str, bytes]:
    """Name -> line."""
    _, *rest = File(__file__).with_name("exabgp_lines.txt").read_text().splitlines()
    return {name.removeprefix("# "): line.encode() for name, line in zip(rest[::2], rest[1::2], strict=True)}


LINES = lines()


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
    "show neighbor json": (
        Neighbors(
            (
                Neighbor(
                    peer=V4,
                    local_address="10.9.0.1",
                    as_number=64512,
                    local_as=64512,
                    up=True,
                    state="ESTABLISHED",
                    router_id="10.9.0.2",
                    duration_s=43,
                    received=6,
                    graceful_restart=True,
                    route_refresh=True,
                ),
                Neighbor(
                    peer=V6,
                    local_address="fd00:9::1",
                    as_number=65001,
                    local_as=64512,
                    up=False,
                    state="IDLE",
                ),
            )
        ),
    ),
    "done": (Done(),),
    "error": (Failed(),),
    "version": (Other("exabgp 5.0.15"),),
}


def timeless(message: Message) -> Message:
    """Without the time, which is checked once below."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__ if name != "time_s"}
    return type(message)(**fields)


def test_every_line_that_was_recorded_has_its_meaning_written_down() -> None:
    assert LINES.keys() == SEEN.keys()


@pytest.mark.parametrize("name", SEEN)
def test_a_line_of_exabgp_reads_as_what_happened(name: str) -> None:
    assert tuple(map(timeless, decode(LINES[name]))) == SEEN[name]


def test_an_event_carries_exabgps_clock() -> None:
    (message,) = decode(LINES["up"])
    assert isinstance(message, Up)
    assert 1.7e9 < message.time_s < 2e9


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b'{ "type": "state", "neighbor": 3 }',
        b'{ "type": "state", "neighbor": { "address": { "peer": "nobody" }, "state": "up" } }',
        b'{ "type": "keepalive", "neighbor": { "address": { "peer": "10.9.0.2" } } }',
        b"[1]",
        b"\xff",
    ],
)
def test_what_cant_be_read_comes_back_as_text(line: bytes) -> None:
    assert decode(line) == (Other(line.decode(errors="replace")),)


def test_an_empty_line_says_nothing() -> None:
    assert decode(b" \n") == ()


def test_of_two_next_hops_the_global_one_counts() -> None:
    line = LINES["update over IPv6 from another AS"]
    both = line.replace(
        b'"fd00:9::2": [ { "nlri": "fd10::/122" } ]',
        b'"fd00:9::2": [ { "nlri": "fd10::/122" } ], "fe80::2": [ { "nlri": "fd10::/122" } ]',
    )
    assert both != line
    assert tuple(map(timeless, decode(both))) == SEEN["update over IPv6 from another AS"]


def test_an_as_set_is_one_hop() -> None:
    line = LINES["update of BIRD"].replace(
        b'{"0": {"element": "as-sequence", "value": [65010]}}',
        b'{"0": {"element": "as-sequence", "value": [65010, 65011]}, "1": {"element": "as-set", "value": [1, 2]}}',
    )
    (update,) = decode(line)
    assert isinstance(update, Updated)
    assert update.announced[0].as_path == ((65010,), (65011,), (1, 2))


def test_prefixes_of_equal_attributes_share_a_command() -> None:
    def told(prefix: str, *communities: str, preference: int = 2147482623) -> Announcement:
        return Announcement(
            prefix=prefix, next_hop="10.9.0.1", local_preference=preference, communities=communities
        )  # fmt: skip

    assert announce_commands(
        "10.9.0.2",
        [
            told("10.1.0.64/26"),
            told("10.1.0.0/26"),
            told("10.2.0.0/26", "65000:1", "65000:1:2"),
            told("10.3.0.0/26", preference=5),
        ],
    ) == (
        "neighbor 10.9.0.2 announce attributes next-hop 10.9.0.1 local-preference 5 nlri 10.3.0.0/26",
        "neighbor 10.9.0.2 announce attributes next-hop 10.9.0.1 local-preference 2147482623"
        " nlri 10.1.0.0/26 10.1.0.64/26",
        "neighbor 10.9.0.2 announce attributes next-hop 10.9.0.1 local-preference 2147482623"
        " community [ 65000:1 ] large-community [ 65000:1:2 ] nlri 10.2.0.0/26",
    )


def test_nothing_to_tell_is_no_command() -> None:
    assert announce_commands("10.9.0.2", ()) == ()
    assert withdraw_commands("10.9.0.2", ()) == ()


def test_a_withdrawal_keeps_the_families_apart() -> None:
    assert withdraw_commands("10.9.0.2", ["fd10::/122", "10.1.0.64/26", "10.1.0.0/26", "10.1.0.0/26"]) == (
        "neighbor 10.9.0.2 withdraw attributes nlri 10.1.0.0/26 10.1.0.64/26",
        "neighbor 10.9.0.2 withdraw attributes nlri fd10::/122",
    )


def test_a_command_holds_500_prefixes_at_most() -> None:
    prefixes = [f"10.{i >> 8}.{i & 255}.0/24" for i in range(1001)]
    commands = withdraw_commands("10.9.0.2", prefixes)
    assert [command.count("/24") for command in commands] == [500, 500, 1]
    assert {word for command in commands for word in command.split() if "/" in word} == set(prefixes)


def test_end_of_rib_names_the_family() -> None:
    assert end_of_rib_command("fd00:9::2", 6) == "neighbor fd00:9::2 announce eor ipv6 unicast"
