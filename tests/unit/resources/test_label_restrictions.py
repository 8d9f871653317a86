"""What a selector asks of labels: Calico's own cases, and that what is said holds for every match."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.resources.label_restrictions import Restriction, restrictions
from calipy.resources.selectors import All, Compare, Expression, Has, In, Join, Not, Selector, parse
from tests.effort import examples


def values(*each: str) -> Restriction:
    """The label is there and has one of these values."""
    return Restriction(present=True, values=frozenset(each))


PRESENT, ABSENT = Restriction(present=True), Restriction(absent=True)

# selector | what is known of which label
KNOWN: list[tuple[str, dict[str, Restriction]]] = [
    ("", {}),
    ("all()", {}),
    ("global()", {}),
    ("a == 'b'", {"a": values("b")}),
    ("has(a)", {"a": PRESENT}),
    ("a in {'b', 'c'}", {"a": values("b", "c")}),
    ("a in {}", {"a": values()}),
    ("a not in {'b', 'c'}", {}),
    ("a contains 'b'", {"a": PRESENT}),
    ("a starts with 'b'", {"a": PRESENT}),
    ("a ends with 'b'", {"a": PRESENT}),
    ("a != 'b'", {}),
    ("a == 'b' && a == 'b'", {"a": values("b")}),
    ("a == 'b' && a == 'c'", {"a": values()}),
    ("a == 'b' && has(a)", {"a": values("b")}),
    ("has(a) && a == 'b'", {"a": values("b")}),
    ("a in {'b', 'c', 'd'} && a in {'c', 'd', 'e'}", {"a": values("c", "d")}),
    ("has(a) && !has(a)", {"a": Restriction(present=True, absent=True)}),
    ("!has(a) && has(a)", {"a": Restriction(present=True, absent=True)}),
    ("a == 'b' && c == 'd'", {"a": values("b"), "c": values("d")}),
    ("all() && a == 'b' && all()", {"a": values("b")}),
    ("a == 'b' && c != 'd'", {"a": values("b")}),
    ("a == 'b' || a == 'c'", {"a": values("b", "c")}),
    ("has(a) || a == 'b'", {"a": PRESENT}),
    ("a == 'b' || has(a)", {"a": PRESENT}),
    ("a == 'b' || has(c)", {}),
    ("a == 'b' || (has(c) && has(a))", {"a": PRESENT}),
    ("a == 'b' || c == 'd'", {}),
    ("a == 'b' || all()", {}),
    ("all() || a == 'b'", {}),
    ("!has(a) || !has(a)", {"a": ABSENT}),
    ("!has(a) || has(a)", {}),
    ("has(a) || !has(a)", {}),
    ("has(a) || a in {}", {"a": PRESENT}),
    ("a in {} || has(a)", {"a": PRESENT}),
    ("!has(a) && has(c)", {"a": ABSENT, "c": PRESENT}),
    ("!has(a) && a != 'b'", {"a": ABSENT}),
    ("!(a == 'b')", {}),
    ("!has(a)", {"a": ABSENT}),
    ("!!has(a)", {"a": PRESENT}),
    ("!(has(a) && has(c))", {}),
]


@pytest.mark.parametrize(("text", "known"), KNOWN, ids=[row[0] for row in KNOWN])
def test_known(text: str, known: dict[str, Restriction]) -> None:
    assert restrictions(parse(text)) == known


@pytest.mark.parametrize(
    ("text", "impossible"),
    [
        ("a == 'b' && a == 'c'", True),
        ("a in {}", True),
        ("has(a) && !has(a)", True),
        ("a == 'b'", False),
        ("has(a)", False),
        ("!has(a)", False),
    ],
)
def test_what_can_match_nothing(text: str, impossible: bool) -> None:
    assert restrictions(parse(text))["a"].impossible is impossible


labels, texts = st.sampled_from("abc"), st.sampled_from(["", "x", "y"])
leaves: st.SearchStrategy[Expression] = st.one_of(
    st.just(All()),
    st.builds(Has, labels),
    st.builds(Compare, labels, st.sampled_from(["==", "!=", "contains", "starts with", "ends with"]), texts),
    st.builds(In, labels, st.sets(texts, max_size=2).map(sorted).map(tuple), st.booleans()),
)


def _larger(smaller: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    joins: st.SearchStrategy[Any] = st.builds(
        Join, st.sampled_from(["&&", "||"]), st.lists(smaller, min_size=2, max_size=3).map(tuple)
    )
    return st.one_of(smaller.map(Not), joins)


def _holds(restriction: Restriction, value: str | None) -> bool:
    return (
        not (restriction.present and value is None)
        and not (restriction.absent and value is not None)
        and (restriction.values is None or value in restriction.values)
    )


@examples(100)
@given(st.recursive(leaves, _larger, max_leaves=6), st.dictionaries(labels, texts, max_size=3))
def test_what_is_known_holds_for_every_match(expression: Expression, found: dict[str, str]) -> None:
    selector = Selector(expression)
    if selector.matches(found):
        for label, restriction in restrictions(selector).items():
            assert _holds(restriction, found.get(label)), label
