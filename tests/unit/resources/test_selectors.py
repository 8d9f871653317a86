"""Selectors: what they mean, their canonical text and identity (Calico's own, golden), where a wrong one is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.resources.selectors import (
    All,
    Compare,
    Expression,
    Global,
    Has,
    In,
    Join,
    Not,
    Selector,
    SelectorError,
    parse,
)
from tests.effort import examples

# selector | labels that it matches | labels that it doesn't
MEANING: list[tuple[str, list[dict[str, str]], list[dict[str, str]]]] = [
    ("", [{}, {"a": "b"}], []),
    (" \t", [{}, {"a": "b"}], []),
    ("all()", [{}, {"a": "b"}], []),
    ("global()", [{}, {"a": "b"}], []),
    ("a == 'b'", [{"a": "b"}, {"a": "b", "c": "d"}], [{}, {"a": "c"}, {"c": "b"}]),
    ("a != 'b'", [{}, {"a": "c"}], [{"a": "b"}]),
    ("a in {'b', \"c\"}", [{"a": "b"}, {"a": "c"}], [{}, {"a": "d"}]),
    ("a in {\"'\", '\"', 'c'}", [{"a": "'"}, {"a": '"'}, {"a": "c"}], [{}, {"a": "e"}]),
    ("!a in {'b'}", [{}, {"a": "c"}], [{"a": "b"}]),
    ("! a == 'b' || ! c == 'd'", [{}, {"a": "b"}], [{"a": "b", "c": "d"}]),
    ("!(!has(a) || has(b))", [{"a": "a"}], [{}, {"a": "a", "b": ""}]),
    ("startswith starts  with 'b'", [{"startswith": "bc"}], [{}]),
    ("a in {}", [], [{}, {"a": ""}]),
    ("a not in {'b', 'c'}", [{}, {"a": "d"}], [{"a": "b"}, {"a": "c"}]),
    ("has(a)", [{"a": ""}], [{}, {"b": "a"}]),
    ("!has(a)", [{}, {"b": "a"}], [{"a": ""}]),
    ("a contains 'b'", [{"a": "b"}, {"a": "abc"}], [{}, {"a": "ac"}, {"b": "b"}]),
    ("a starts with 'b'", [{"a": "bc"}], [{}, {"a": "cb"}]),
    ("a ends with 'b'", [{"a": "cb"}], [{}, {"a": "bc"}]),
    ("a == 'b' && c == 'd'", [{"a": "b", "c": "d"}], [{}, {"a": "b"}, {"c": "d"}]),
    ("a == 'b' || c == 'd'", [{"a": "b"}, {"c": "d"}], [{}, {"a": "d"}]),
    ("has(a) || has(b) && has(c)", [{"a": ""}, {"b": "", "c": ""}], [{"b": ""}, {"c": ""}]),
    ("(has(a) || has(b)) && has(c)", [{"a": "", "c": ""}], [{"a": ""}, {"b": ""}]),
    ("!(has(a) || has(b))", [{}], [{"a": ""}, {"b": ""}]),
    ("!a == 'b'", [{}, {"a": "c"}], [{"a": "b"}]),
    ("!!has(a)", [{"a": ""}], [{}]),
    ("!! ! has(a)", [{}], [{"a": ""}]),
    ("example.com/role == 'x-y_z'", [{"example.com/role": "x-y_z"}], [{}]),
    ("in == 'contains' && has(all)", [{"in": "contains", "all": ""}], [{}]),
]


@pytest.mark.parametrize(("text", "yes", "no"), MEANING, ids=[row[0] for row in MEANING])
def test_meaning(text: str, yes: list[dict[str, str]], no: list[dict[str, str]]) -> None:
    for selector in (parse(text), parse(parse(text).canonical)):
        assert [labels for labels in yes if not selector.matches(labels)] == []
        assert [labels for labels in no if selector.matches(labels)] == []


# selector | canonical text | identity, where Calico's own tests give one (libcalico-go's parser)
CANONICAL = [
    ("", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
    (" all() ", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
    (" (all( ) )", "all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
    ("! (has( b)||! has(a ))", "!(has(b) || !has(a))", "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q"),
    ('! (a == "b"&&! c != "d")', '!(a == "b" && !c != "d")', "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w"),
    ("!!has(b)", "has(b)", ""),
    ("!!!has(b)", "!has(b)", ""),
    ('a == "\'"', 'a == "\'"', ""),
    ("a == '\"'", "a == '\"'", ""),
    ("a startswith '\"'", "a starts with '\"'", ""),
    ('a endswith"b"', 'a ends with "b"', ""),
    ("a!='b'", 'a != "b"', ""),
    ("a contains'b'", 'a contains "b"', ""),
    ('a in{"z","z","x"}', 'a in {"x", "z"}', ""),
    ("a notin {'b',}", 'a not in {"b"}', ""),
    ("a in {}", "a in {}", ""),
    ("a=='b'&&(c=='d'&&has(e))", '(a == "b" && (c == "d" && has(e)))', ""),
    ("((has(a)))&&all()||global()", "((has(a) && all()) || global())", ""),
]


@pytest.mark.parametrize(("text", "canonical", "identity"), CANONICAL, ids=[row[0] for row in CANONICAL])
def test_canonical_text_and_identity_are_calicos(text: str, canonical: str, identity: str) -> None:
    found = parse(text)
    assert found.canonical == canonical
    assert parse(canonical).canonical == canonical
    if identity:
        assert found.id == identity


# selector | what its error says
WRONG = [
    ("b", "column 2: 'the end' where ==, !=, in, not in, contains, starts with or ends with was expected"),
    ("b == b", "column 6: 'b' where a string in quotes was expected"),
    ("b contains b", "column 12: 'b' where a string in quotes was expected"),
    ("b starts with b", "column 15: 'b' where a string in quotes was expected"),
    ("b ends with b", "column 13: 'b' where a string in quotes was expected"),
    (
        "b starts foo 'b'",
        "column 3: 'starts' where ==, !=, in, not in, contains, starts with or ends with was expected",
    ),
    (
        "b squiggles 'b'",
        "column 3: 'squiggles' where ==, !=, in, not in, contains, starts with or ends with was expected",
    ),
    ("foo != ||", "column 8: '||' where a string in quotes was expected"),
    ("foo in {'', ||", "column 13: '||' where } was expected"),
    ("'b1' == b", "column 1: 'b1' where a label, has(), all(), global(), ! or ( was expected"),
    ("a b", "column 3: 'b' where ==, !=, in, not in, contains, starts with or ends with was expected"),
    ("!", "column 2: 'the end' where a label, has(), all(), global(), ! or ( was expected"),
    ("foo == 'bar' &", "column 14: '&' begins no word, string or operator"),
    ("foo == 'bar' |", "column 14: '|' begins no word, string or operator"),
    ("foo == 'bar' && %", "column 17: '%' begins no word, string or operator"),
    ("foo == 'bar' || %", "column 17: '%' begins no word, string or operator"),
    ("foo == 'bar' && ", "column 16: 'the end' where a label, has(), all(), global(), ! or ( was expected"),
    ("foo == 'bar' baz", "column 14: 'baz' where &&, || or the end was expected"),
    ("foo = 'bar'", "column 5: \"= 'bar'\" begins no word, string or operator"),
    ("foo in 'bar'", "column 8: 'bar' where { was expected"),
    ("foo in {'bar'", "column 14: 'the end' where } was expected"),
    ("foo in {,}", "column 9: ',' where } was expected"),
    ("foo in {'a' 'b'}", "column 13: 'b' where } was expected"),
    ("foo not 'bar'", "column 5: 'not' where ==, !=, in, not in, contains, starts with or ends with was expected"),
    ('foo == "bar', "column 8: '\"bar' is a string without its end"),
    ("\"FOO'", "column 1: '\"FOO\\'' is a string without its end"),
    (")", "column 1: ')' where a label, has(), all(), global(), ! or ( was expected"),
    ("(foo == 'bar'", "column 14: 'the end' where ) was expected"),
    ("()", "column 2: ')' where a label, has(), all(), global(), ! or ( was expected"),
    ("has(a", "column 6: 'the end' where ) was expected"),
    ("has()", "column 5: ')' where a label was expected"),
    ("has (a)", "column 5: '(' where ==, !=, in, not in, contains, starts with or ends with was expected"),
    ("all", "column 4: 'the end' where ==, !=, in, not in, contains, starts with or ends with was expected"),
    ("all(a)", "column 5: 'a' where ) was expected"),
    ("a == 'b' &&\nhas(c)", "column 12: '\\nhas(c)' begins no word, string or operator"),
    ("%", "column 1: '%' begins no word, string or operator"),
    ("has(é)", "column 5: 'é)' begins no word, string or operator"),
    (f"has({'a' * 513})", "column 5: a label has 512 characters at most"),
    (f"{'a' * 513} == 'b'", "column 1: a label has 512 characters at most"),
    ("(" * 1024, "column 51: more than 50 parentheses are open"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[row[0][:20] for row in WRONG])
def test_a_wrong_selector_is_told_by_column(text: str, said: str) -> None:
    with pytest.raises(SelectorError) as raised:
        parse(text)
    assert str(raised.value) == said


def test_a_thousand_negations_are_one() -> None:
    assert parse("!" * 1001 + "has(a)").canonical == "!has(a)"


labels = st.text("abzAZ09_./-", min_size=1, max_size=8)
values = st.text(max_size=6).filter(lambda text: not ("'" in text and '"' in text))
leaves: st.SearchStrategy[Expression] = st.one_of(
    st.just(All()),
    st.just(Global()),
    st.builds(Has, labels),
    st.builds(Compare, labels, st.sampled_from(["==", "!=", "contains", "starts with", "ends with"]), values),
    st.builds(In, labels, st.sets(values, max_size=3).map(sorted).map(tuple), st.booleans()),
)


def _larger(smaller: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.one_of(
        smaller.filter(lambda operand: not isinstance(operand, Not)).map(Not),
        st.builds(Join, st.sampled_from(["&&", "||"]), st.lists(smaller, min_size=2, max_size=3).map(tuple)),
    )


@examples(30)
@given(st.recursive(leaves, _larger, max_leaves=6))
def test_the_canonical_text_is_read_back_as_the_same_selector(expression: Expression) -> None:
    selector = Selector(expression)
    assert parse(selector.canonical) == selector
