"""Labels, and Kubernetes' own selectors of them: what they mean, what is right, what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from calipy.resources.label_selectors import LabelSelector, label_selector_problems
from calipy.resources.labels import is_name, is_value

# selector | labels that it matches | labels that it doesn't
MEANING: list[tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]] = [
    ({}, [{}, {"a": "b"}], []),
    ({"matchLabels": {}, "matchExpressions": []}, [{}, {"a": "b"}], []),
    ({"matchLabels": {"a": "b"}}, [{"a": "b"}, {"a": "b", "c": "d"}], [{}, {"a": "c"}, {"c": "b"}]),
    ({"matchLabels": {"a": ""}}, [{"a": ""}], [{}, {"a": "b"}]),
    ({"matchLabels": {"a": "b", "c": "d"}}, [{"a": "b", "c": "d"}], [{"a": "b"}, {"c": "d"}]),
    (
        {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]},
        [{"a": "b"}, {"a": "c"}],
        [{}, {"a": "d"}],
    ),
    (
        {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b", "c"]}]},
        [{}, {"a": "d"}],
        [{"a": "b"}, {"a": "c"}],
    ),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, [{"a": ""}], [{}, {"b": ""}]),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, [{}, {"b": ""}], [{"a": ""}]),
    (
        {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]},
        [{"a": "b", "c": ""}],
        [{"a": "b"}, {"c": ""}],
    ),
]


@pytest.mark.parametrize(("selector", "yes", "no"), MEANING, ids=[str(row[0])[:70] for row in MEANING])
def test_meaning(selector: dict[str, Any], yes: list[dict[str, str]], no: list[dict[str, str]]) -> None:
    found = msgspec.convert(selector, LabelSelector)
    assert [labels for labels in yes if not found.matches(labels)] == []
    assert [labels for labels in no if found.matches(labels)] == []


WORD = "letters, digits, -, _ and ., 63 at most, a letter or digit at both ends"
NAME = f"can't be the name of a label; {WORD}; before it, at will, a DNS name and /"
VALUE = f"can't be the value of a label; {WORD}, or nothing at all"
PROBLEMS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"matchLabels": {"app.kubernetes.io/name": "a_B.c-1", "a": ""}},
        [],
    ),
    ({"matchLabels": {"a b": "c"}}, [f"f.matchLabels: 'a b': {NAME}"]),
    ({"matchLabels": {"a": "c!"}}, [f"f.matchLabels[a]: 'c!': {VALUE}"]),
    (
        {"matchExpressions": [{"key": "", "operator": "In"}, {"key": "a", "operator": "NotIn", "values": ["", "-"]}]},
        [
            f"f.matchExpressions[0].key: '': {NAME}",
            "f.matchExpressions[0].values: []: is empty, and operator is In; name one value or more",
            f"f.matchExpressions[1].values[1]: '-': {VALUE}",
        ],
    ),
    (
        {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
        ["f.matchExpressions[0].values: ['b']: means nothing with operator Exists; leave it out"],
    ),
    (
        {"matchExpressions": [{"key": "a", "operator": "DoesNotExist", "values": ["b"]}]},
        ["f.matchExpressions[0].values: ['b']: means nothing with operator DoesNotExist; leave it out"],
    ),
]


@pytest.mark.parametrize(("selector", "problems"), PROBLEMS, ids=[str(row[0])[:70] for row in PROBLEMS])
def test_problems(selector: dict[str, Any], problems: list[str]) -> None:
    found = msgspec.convert(selector, LabelSelector)
    assert [str(problem) for problem in label_selector_problems("f", found)] == problems


NAMES = [
    "a", "A", "0", "a-b", "a_b", "a.b", "a" * 63, "example.com/a", "a/A_b.c-1", f"{'a.' * 126}a/b",
]  # fmt: skip
NO_NAMES = [
    "", "-a", "a-", ".", "a b", "é", "a\n", "a" * 64, "/a", "a/", "a/b/c", "Example.com/a", "a_b/c", "-a/b",
    f"{'a.' * 126}aa/b",
]  # fmt: skip


def test_names_of_labels() -> None:
    assert [name for name in NAMES if not is_name(name)] == []
    assert [name for name in NO_NAMES if is_name(name)] == []


def test_values_of_labels() -> None:
    assert [value for value in ("", "a", "A_b.c-1", "a" * 63) if not is_value(value)] == []
    assert [value for value in ("-", "a-", "a/b", "a b", "é", "a\n", "a" * 64) if is_value(value)] == []
