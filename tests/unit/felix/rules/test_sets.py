"""Sets of prefixes: nothing that another member covers, and by steps the same as at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.calc.change import NodeState, SetDelta, SetKey
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import Members
from calipy.felix.rules import names, sets
from calipy.felix.rules.sets import Cover
from calipy.felix.rules.steps import all_of
from calipy.felix.rules.values import SetSpec
from calipy.model.sets import SetId, SetKind, net_member

KEY = SetKey(SetId("s:x"), 4)
SIX = SetKey(SetId("s:x"), 6)


def networks(family: int) -> st.SearchStrategy[str]:
    """Of a small room, so that they cover each other; whole addresses without their length, now and then with it."""
    size, base = (32, "10.0.0.0") if family == 4 else (128, "fd00::")
    start = int(ipaddress.ip_address(base))
    ip = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address

    def network(offset: int, length: int, spelled: bool) -> str:
        text = str(ipaddress.ip_network(f"{ip(start + offset)}/{length}", strict=False))
        return text if spelled else net_member(text)

    return st.builds(network, st.integers(0, 63), st.integers(size - 6, size), st.sampled_from([False] * 9 + [True]))


def state(key: SetKey, members: Iterable[str], kind: SetKind = "prefixes") -> NodeState:
    return NodeState(settings=FelixSettings(), sets={key: kind}, members={key: frozenset(members)})


def whole(members: frozenset[str]) -> Cover:
    return all_of(sets.cover_steps(members))


def addresses(members: Iterable[str]) -> set[int]:
    """All addresses that a set holds."""
    return {int(address) for member in members for address in ipaddress.ip_network(member)}


@given(st.frozensets(networks(4), max_size=12) | st.frozensets(networks(6), max_size=12))
def test_the_same_addresses_and_none_twice(members: frozenset[str]) -> None:
    keys = whole(members).keys(members)
    assert addresses(keys) == addresses(members)
    assert len(addresses(keys)) == sum(ipaddress.ip_network(key).num_addresses for key in keys), "no overlap"
    assert all(net_member(key) == key for key in keys), "as it is read back"


@given(st.lists(st.frozensets(networks(4), max_size=12), min_size=2, max_size=5))
def test_by_steps_the_same_as_at_once(versions: list[frozenset[str]]) -> None:
    cover = whole(versions[0])
    keys = cover.keys(versions[0])
    for before, after in zip(versions, versions[1:], strict=False):
        delta = SetDelta(after - before, before - after)
        moved = sets.moved_cover(cover, delta)
        if moved is None:
            assert any("/" in member for member in before ^ after)
            moved = whole(after)
            keys = moved.keys(after)
        else:
            (change,) = sets.moved(KEY, state(KEY, after), delta, cover, moved).values()
            keys = (keys - change.removed) | change.added
        cover = moved
        assert cover == whole(after)
        assert keys == cover.keys(after)


def test_where_nothing_is_covered_the_members_are_what_they_were() -> None:
    members = frozenset({"10.0.0.1", "10.0.1.0/24"})
    assert whole(members).keys(members) is members


def test_an_address_more_among_many_looks_at_no_other() -> None:
    many = frozenset(f"10.0.{number >> 8}.{number & 255}" for number in range(10_000)) | {"192.0.2.0/24"}
    cover = whole(many)
    assert len([pause for pause in sets.cover_steps(many) if pause is None]) == 10
    assert sets.moved_cover(cover, SetDelta(frozenset({"192.0.2.7"}))) == Cover(
        firsts=cover.firsts, lasts=cover.lasts, out=frozenset({"192.0.2.7"})
    )
    assert sets.moved_cover(cover, SetDelta(frozenset({"10.9.0.1"}))) == cover
    assert sets.moved_cover(cover, SetDelta(frozenset({"10.9.0.0/24"}))) is None


def test_what_a_set_is_in_the_kernel() -> None:
    for key, kind, members in (
        (KEY, "addresses", {"10.0.0.1"}),
        (SIX, "endpoints", {"fd00::1,tcp:80"}),
        (SetKey(SetId("ports:x"), 0), "ports", {"80", "8000-8080"}),
    ):
        found = sets.compile(key, state(key, members, kind), Cover())  # type: ignore[arg-type]
        name = names.set_name(key, kind)  # type: ignore[arg-type]
        assert found == {
            names.set_(name): SetSpec(kind, key.family),  # type: ignore[arg-type]
            names.members(name): Members(frozenset(members)),
        }
