"""Values that a packet may have in a field, against all numbers tried one by one; and the ways of pods' packets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calipy.node.ways import Hold, Pods, Value, both, covers, either, exactly, joined, opposite, ways
from tests.effort import examples

pairs = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda pair: (min(pair), max(pair)))
ranges = st.lists(pairs, max_size=4).map(joined)


def numbers(found: tuple[tuple[int, int], ...]) -> set[int]:
    return {number for low, high in found for number in range(low, high + 1)}


def expected(held: list[bool]) -> Hold:
    return "always" if held and all(held) else "some" if any(held) else "never"


@examples(300)
@given(ranges, ranges)
def test_a_field_lies_in_ranges_for_all_some_or_none(mine: tuple[tuple[int, int], ...], wanted: object) -> None:
    value = Value(ranges=mine, size=1)
    assert value.within(wanted) == expected([n in numbers(wanted) for n in numbers(mine)])  # type: ignore[arg-type]


@examples(300)
@given(ranges, st.integers(0, 8), st.integers(0, 255))
def test_a_prefix_of_a_field(mine: tuple[tuple[int, int], ...], length: int, word: int) -> None:
    mask = 0xFF << (8 - length) & 0xFF
    seen = Value(ranges=mine, size=1).masked(mask, 0)
    assert isinstance(seen, Value)
    assert seen.within(((word & mask,) * 2,)) == expected([n & mask == word & mask for n in numbers(mine)])


def test_any_bits_of_what_is_known_and_of_nothing_else() -> None:
    assert exactly(b"\x08").masked(0x0A, 0x02) == exactly(b"\x0a")
    seen = Value(ranges=((0, 7),), size=1).masked(0x05, 0)
    assert not isinstance(seen, Value)
    assert seen.hold == "unread"


def test_what_tests_come_to_together() -> None:
    assert both("always", "some") == "some"
    assert both("some", "unread", "always") == "unread"
    assert both("far", "never") == "never"
    assert either(("never", "far")) == "far"
    assert either(("unread", "always")) == "always"
    assert either(()) == "never"
    assert [opposite(hold) for hold in ("always", "never", "some", "unread", "far")] == [
        "never", "always", "some", "unread", "some",
    ]  # fmt: skip


def test_devices() -> None:
    assert covers(("cali*", "eth0"), "cali12")
    assert not covers(("cali*", "eth0"), "eth01")


def test_the_ways_of_a_nodes_pods() -> None:
    pods = Pods(
        prefixes=("cali",), nets=("10.244.0.0/16",), own=("10.9.0.1",), carriers=("eth0", "vxlan.calico"),
        links={2: "eth0", 7: "cali1", 8: "cali2"},
    )  # fmt: skip
    found = list(ways(pods))
    assert {way.family for way in found} == {4}, "no pool, no pods"
    assert sorted({(way.name, way.enters, way.leaves) for way in found}) == [
        ("between pods of this node", ("cali*",), ("cali*",)),
        ("from pods answering this node", ("cali*",), ()),
        ("from pods to outside", ("cali*",), ("eth0",)),
        ("from pods to outside", ("cali*",), ("vxlan.calico",)),
        ("from pods to pods of other nodes", ("cali*",), ("eth0",)),
        ("from pods to pods of other nodes", ("cali*",), ("vxlan.calico",)),
        ("from this node to its pods", (), ("cali*",)),
        ("to pods from outside", ("eth0",), ("cali*",)),
        ("to pods from outside", ("vxlan.calico",), ("cali*",)),
        ("to pods from pods of other nodes", ("eth0",), ("cali*",)),
        ("to pods from pods of other nodes", ("vxlan.calico",), ("cali*",)),
    ]
    outside = next(way for way in found if way.name == "from pods to outside").destination
    assert isinstance(outside, Value)
    span = (int.from_bytes(bytes((127, 0, 0, 0)), "big"), int.from_bytes(bytes((127, 255, 255, 255)), "big"))
    assert outside.within((span,)) == "never", "nobody outside has an address of loopback"
