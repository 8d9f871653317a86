"""The ledger: from wants and findings to operations, and back to silence when they have landed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from calipy.felix.calc.change import SetDelta
from calipy.felix.ledger import LEFTOVER, Contradiction, Ledger
from calipy.felix.objects import Alter, Delete, Members, ObjectName, Owner, Put, fingerprint

A, B = Owner("endpoint", "a"), Owner("endpoint", "b")
CHAIN, SET = ObjectName("chain", "one"), ObjectName("set", "two")


class Value(Struct, frozen=True):
    number: int


def order(kind: str, gone: bool) -> int:
    rank = ["set", "chain", "members"].index(kind)
    return 10 - rank if gone else rank


def ledger() -> Ledger:
    return Ledger(fingerprint, order)


def test_puts_go_sets_first_and_deletes_the_other_way_round() -> None:
    book = ledger()
    book.want(A, {CHAIN: Value(1), SET: Value(2)})
    assert [op.name for op in book.pending()] == [SET, CHAIN]
    book.landed(book.pending())
    assert book.pending() == ()
    book.want(A, None)
    assert book.pending() == (Delete(A, CHAIN), Delete(A, SET))


def test_what_is_right_in_the_kernel_is_not_written() -> None:
    book = ledger()
    book.found({CHAIN: fingerprint(Value(1)), SET: fingerprint(Value(9))})
    book.want(A, {CHAIN: Value(1), SET: Value(2)})
    assert book.pending() == (Put(A, SET, Value(2), replaces=True),)


def test_what_nobody_wants_is_a_leftover() -> None:
    book = ledger()
    book.found({CHAIN: b"x"})
    assert book.pending() == (Delete(LEFTOVER, CHAIN),)


def test_a_leftover_can_be_held_by_a_name_of_its_own() -> None:
    book = ledger()
    learned = Owner("leftover", "bgp")
    book.found({CHAIN: b"x"}, lambda name: learned)
    book.hold(learned, "BGP has not said yet")
    assert book.pending() == ()
    book.release(learned)
    assert book.pending() == (Delete(learned, CHAIN),)


def test_a_shared_object_goes_with_its_last_owner() -> None:
    book = ledger()
    book.want(A, {SET: Value(1)})
    book.want(B, {SET: Value(1)})
    book.landed(book.pending())
    book.want(A, None)
    assert book.pending() == ()
    book.want(B, None)
    assert book.pending() == (Delete(B, SET),)


def test_owners_that_contradict_each_other_are_a_mistake() -> None:
    book = ledger()
    book.want(A, {SET: Value(1)})
    with pytest.raises(Contradiction):
        book.want(B, {SET: Value(2)})


def test_an_owner_on_hold_is_left_out_and_not_settled() -> None:
    book = ledger()
    book.want(A, {CHAIN: Value(1)})
    book.hold(A, "refused")
    assert book.pending() == ()
    assert not book.settled(A)


MEMBERS = ObjectName("members", "two")


def members(*keys: str) -> Members:
    return Members(frozenset(keys))


def test_of_members_only_what_moved_is_written() -> None:
    book = ledger()
    book.want(A, {SET: Value(1), MEMBERS: members("a", "b")})
    assert book.pending()[-1] == Alter(A, MEMBERS, frozenset("ab"), frozenset())
    book.landed(book.pending())
    book.want(A, {SET: Value(1), MEMBERS: members("b", "c")}, {MEMBERS: SetDelta(frozenset("c"), frozenset("a"))})
    assert book.pending() == (Alter(A, MEMBERS, frozenset("c"), frozenset("a")),)
    assert not book.settled(A)
    book.landed(book.pending())
    assert book.idle
    assert book.settled(A)
    book.want(A, None)
    assert book.pending() == (Alter(A, MEMBERS, frozenset(), frozenset("bc")), Delete(A, SET))


def test_members_have_one_owner() -> None:
    book = ledger()
    book.want(A, {MEMBERS: members("a")})
    with pytest.raises(Contradiction):
        book.want(B, {MEMBERS: members("a")})


def test_members_that_nobody_wants_are_a_leftover() -> None:
    book = ledger()
    book.found({MEMBERS: frozenset("a")})
    assert book.pending() == (Alter(LEFTOVER, MEMBERS, frozenset(), frozenset("a")),)


def test_an_object_that_vanished_is_written_again() -> None:
    book = ledger()
    book.want(A, {CHAIN: Value(1)})
    book.landed(book.pending())
    book.vanished(CHAIN)
    assert book.pending() == (Put(A, CHAIN, Value(1)),)


names = st.builds(ObjectName, st.sampled_from(["chain", "set"]), st.sampled_from("pqr"))
wants = st.dictionaries(names, st.builds(Value, st.integers(0, 2)))


@given(st.lists(st.tuples(st.sampled_from([A]), wants | st.none())), st.dictionaries(names, st.binary(max_size=1)))
def test_whatever_happens_what_lands_is_what_is_wanted(
    steps: list[tuple[Owner, dict[ObjectName, Value] | None]], found: dict[ObjectName, bytes]
) -> None:
    """A kernel that takes every operation ends up with exactly the last wants."""
    book = ledger()
    kernel = dict(found)
    book.found(kernel)
    wanted: dict[ObjectName, Value] = {}
    for owner, objects in steps:
        book.want(owner, objects)
        wanted = dict(objects or {})
        ops = book.pending()
        for op in ops:
            if isinstance(op, Put):
                kernel[op.name] = fingerprint(op.value)
            else:
                kernel.pop(op.name, None)
        book.landed(ops)
        assert book.pending() == ()
        assert book.settled(owner)
        assert kernel == {name: fingerprint(value) for name, value in wanted.items()}


keys = st.frozensets(st.sampled_from("abcd"))


@given(st.lists(st.tuples(keys, st.booleans(), st.booleans()), max_size=8), keys)
def test_members_land_as_they_are_wanted_whatever_moves_meanwhile(
    steps: list[tuple[frozenset[str], bool, bool]], found: frozenset[str]
) -> None:
    """Wants come by delta or whole, and some while the operations before them are still on their way."""
    book, kernel, wanted, sent = ledger(), set(found), frozenset[str](), ()
    book.found({MEMBERS: found} if found else {})
    for keys_now, by_delta, lands in steps:
        moved = {MEMBERS: SetDelta(keys_now - wanted, wanted - keys_now)} if by_delta else {}
        book.want(A, {MEMBERS: Members(keys_now)}, moved)
        wanted = keys_now
        if not lands:
            sent = sent or book.pending()
            continue
        for ops in (sent, None):
            for op in book.pending() if ops is None else ops:
                assert isinstance(op, Alter)
                kernel = kernel - op.removed | op.added
                book.landed((op,))
        sent = ()
        assert kernel == wanted
        assert book.idle


def test_only_what_is_wanted_and_believed_there_can_be_lost() -> None:
    book = ledger()
    book.want(A, {CHAIN: Value(1)})
    assert not book.wants(CHAIN), "not there yet"
    book.landed(book.pending())
    assert book.wants(CHAIN)
    book.want(A, None)
    assert not book.wants(CHAIN)


def test_of_one_rank_what_came_first_goes_first() -> None:
    book = ledger()
    for name in ("z", "a", "m"):
        book.want(Owner("endpoint", name), {ObjectName("chain", name): Value(1)})
    assert [op.name.name for op in book.pending()] == ["z", "a", "m"]


def test_a_fingerprint_is_made_where_something_read_is_compared() -> None:
    made: list[Struct] = []

    def noted(value: Struct) -> bytes:
        made.append(value)
        return fingerprint(value)

    book = Ledger(noted, order)
    book.want(A, {CHAIN: Value(1), SET: Value(2)})
    book.landed(book.pending())
    assert made == []
    there = {CHAIN: fingerprint(Value(1)), SET: fingerprint(Value(3)), ObjectName("set", "alien"): b"x"}
    assert len(list(book.fingerprints(there))) == len(there)
    book.found(there, lambda name: B)
    book.found(there, lambda name: B)
    assert made == [Value(1), Value(2)]
    assert book.pending() == (Put(A, SET, Value(2), replaces=True), Delete(B, ObjectName("set", "alien")))


def test_what_lands_after_it_was_let_go_goes_again() -> None:
    book = ledger()
    book.want(A, {CHAIN: Value(1)})
    sent = book.pending()
    book.want(A, None)
    assert book.pending() == ()
    book.landed(sent)
    assert book.pending() == (Delete(A, CHAIN),)


def test_what_lands_after_it_was_given_another_value_is_replaced() -> None:
    book = ledger()
    book.want(A, {CHAIN: Value(1)})
    sent = book.pending()
    book.want(A, {CHAIN: Value(2)})
    book.landed(sent)
    assert book.pending() == (Put(A, CHAIN, Value(2), replaces=True),)
    book.want(A, {CHAIN: Value(1)})
    assert book.pending() == ()
