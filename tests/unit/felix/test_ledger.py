"""The ledger: from wants and findings to operations, and back to silence when they have landed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from calipy.felix.ledger import LEFTOVER, Contradiction, Ledger
from calipy.felix.objects import Delete, ObjectName, Op, Owner, Put, fingerprint

A, B = Owner("endpoint", "a"), Owner("endpoint", "b")
CHAIN, SET = ObjectName("chain", "one"), ObjectName("set", "two")


class Value(Struct, frozen=True):
    number: int


def order(op: Op) -> int:
    rank = ["set", "chain"].index(op.name.kind)
    return rank if isinstance(op, Put) else 10 - rank


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


def test_amend_touches_only_what_it_names() -> None:
    book = ledger()
    book.want(A, {CHAIN: Value(1), SET: Value(2)})
    book.landed(book.pending())
    book.amend(A, {CHAIN: Value(3)}, [SET])
    assert book.pending() == (Put(A, CHAIN, Value(3), replaces=True), Delete(A, SET))


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
