"""A set in force: members counted by those who bring them, and what is told of them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.calc.change import SetKey
from calipy.felix.calc.live_sets import LiveSet
from calipy.felix.calc.policies import SetSpec
from calipy.felix.calc.set_uses import SetUses
from calipy.model.selectables import NamedPort
from calipy.model.sets import EndpointSet, SelectorSet, SetId

SPEC = SelectorSet(SetId("s:1"), "all()")
KEY = SetKey(SPEC.id, 4)
NETS = ("10.0.0.1", "10.0.0.2", "10.0.0.0/24")


@given(st.lists(st.lists(st.tuples(st.booleans(), st.sampled_from(NETS)), max_size=8), max_size=5))
def test_it_tells_what_has_moved_and_no_more(batches: list[list[tuple[bool, str]]]) -> None:
    live, wanted, told = LiveSet(KEY, SPEC), Counter[str](), frozenset[str]()
    kind = None
    for batch in batches:
        for brings, net in batch:
            if brings:
                assert live.bring([net]) == (wanted[net] == 0)
                wanted[net] += 1
            elif wanted[net]:
                assert live.take([net]) == (wanted[net] == 1)
                wanted[net] -= 1
        assert live.told() == told
        new_kind, delta = live.moved()
        members = frozenset(+wanted)
        assert (delta.added, delta.removed) == (members - told, told - members)
        kind, told = new_kind or kind, members
        assert live.members == told == live.told()
        assert kind == ("prefixes" if NETS[2] in told else "addresses")


def test_what_of_a_workload_belongs_in_it() -> None:
    nets = ("10.0.0.1", "fd00::1")
    ports = (NamedPort("http", 6, 80), NamedPort("http", 17, 81), NamedPort("dns", 6, 53), NamedPort("http", 6, 8080))
    named = EndpointSet(id=SetId("n:1"), selector="all()", protocol=6, port="http")
    assert list(LiveSet(KEY, SPEC).of(nets, ports)) == ["10.0.0.1"]
    assert list(LiveSet(SetKey(SPEC.id, 6), SPEC).of(nets, ports)) == ["fd00::1"]
    assert list(LiveSet(SetKey(named.id, 4), named).of(nets, ports)) == ["10.0.0.1,tcp:80", "10.0.0.1,tcp:8080"]
    assert list(LiveSet(SetKey(named.id, 6), named).of(nets, ())) == []


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.frozensets(st.sampled_from([4, 6, 0])), st.booleans())))
def test_a_set_is_there_while_somebody_uses_it(story: list[tuple[str, frozenset[int], bool]]) -> None:
    uses, users, there = SetUses(), dict[str, frozenset[int]](), set[SetKey]()
    for user, families, asked in story:
        sets: dict[SetKey, SetSpec] = {SetKey(SPEC.id, family): SPEC for family in families}
        uses.put(user, sets)
        users[user] = families
        if asked:
            gone, come = uses.moved()
            assert there.issuperset(gone)
            assert there.isdisjoint(key for key, _ in come)
            there = (there - set(gone)) | {key for key, spec in come if spec is SPEC}
            assert there == {SetKey(SPEC.id, family) for found in users.values() for family in found}
