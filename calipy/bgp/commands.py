"""How commands to ExaBGP 5.0.15 are spelled. It answers each with what was asked for, then `done` or `error`."""

from __future__ import annotations

from collections.abc import Iterable

from calipy.bgp.outbox import Order
from calipy.bgp.peers import Announcement
from calipy.resources.cidrs import family_of

SHOW_NEIGHBORS = "show neighbor json"
SHOW_RECEIVED = "show adj-rib in json"
SHOW_TOLD = "show adj-rib out json"
_MOST_PREFIXES = 500
"""In one command: measured as fast as any greater number, and far below ExaBGP's limit of a line."""


def announce_commands(peer: str, announcements: Iterable[Announcement]) -> tuple[str, ...]:
    """Commands that tell `peer` (address) of these prefixes: few, for all prefixes of equal attributes share one. The
    local preference is always written: ExaBGP itself leaves it out between autonomous systems."""
    groups: dict[tuple[str, int, tuple[str, ...], bool], list[str]] = {}
    for item in announcements:
        key = (item.next_hop, item.local_preference, item.communities, ":" in item.prefix)
        groups.setdefault(key, []).append(item.prefix)
    commands = []
    for (next_hop, preference, communities, _), prefixes in sorted(groups.items()):
        attributes = f"next-hop {next_hop} local-preference {preference}{_communities(communities)}"
        commands += [
            f"neighbor {peer} announce attributes {attributes} nlri {' '.join(some)}" for some in _portions(prefixes)
        ]
    return tuple(commands)


def withdraw_commands(peer: str, prefixes: Iterable[str]) -> tuple[str, ...]:
    """Commands that take back these prefixes from `peer` (address)."""
    chosen = set(prefixes)
    families = ([p for p in chosen if ":" not in p], [p for p in chosen if ":" in p])
    return tuple(
        f"neighbor {peer} withdraw attributes nlri {' '.join(some)}"
        for family in families
        for some in _portions(family)
    )


def end_of_rib_command(peer: str) -> str:
    """The command that sends End-of-RIB to `peer` (address), of the family of its session."""
    return f"neighbor {peer} announce eor ipv{family_of(peer)} unicast"


def refresh_command(peer: str) -> str:
    """The command that asks `peer` (address) to tell all again."""
    return f"neighbor {peer} announce route-refresh ipv{family_of(peer)} unicast"


def order_commands(order: Order) -> tuple[str, ...]:
    """The commands that carry out an order."""
    return (
        *announce_commands(order.peer, order.announce),
        *withdraw_commands(order.peer, order.withdraw),
        *([end_of_rib_command(order.peer)] if order.end_of_rib else ()),
    )


def _portions(prefixes: Iterable[str]) -> list[list[str]]:
    ordered = sorted(prefixes)
    return [ordered[start : start + _MOST_PREFIXES] for start in range(0, len(ordered), _MOST_PREFIXES)]


def _communities(values: Iterable[str]) -> str:
    text = ""
    for word, colons in (("community", 1), ("large-community", 2)):
        chosen = [value for value in values if value.count(":") == colons]
        if chosen:
            text += f" {word} [ {' '.join(chosen)} ]"
    return text
