"""Commands out: how they are spelled."""

from __future__ import annotations

from calipy.bgp.commands import announce_commands, end_of_rib_command, withdraw_commands
from calipy.bgp.peers import Announcement


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
    assert end_of_rib_command("fd00:9::2") == "neighbor fd00:9::2 announce eor ipv6 unicast"
