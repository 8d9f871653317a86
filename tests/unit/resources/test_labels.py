"""Labels and annotations: what may be one, and what is said of what may not."""

from __future__ import annotations

import pytest

from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import ObjectMeta

WORDS = "letters, digits, -, _ and ., 63 at most, a letter or digit at both ends"
NO_KEY = f"can't be the name of a label; {WORDS}; before it, at will, a DNS name and /"
KEY, VALUE = "metadata.labels", "metadata.labels[k]"


def said(labels: dict[str, str], annotations: dict[str, str] | None = None) -> list[str]:
    return [str(problem) for problem in metadata_problems(ObjectMeta(labels=labels, annotations=annotations or {}))]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("app", "web"), ("app", ""), ("App_1.x-y", "A_1.x-Y"), ("kubernetes.io/hostname", "n1"), ("0", "0"),
        ("a" * 63, "b" * 63), (f"{'a' * 253}/x", "y"),
    ],
)  # fmt: skip
def test_labels(key: str, value: str) -> None:
    assert said({key: value}) == []


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("a b", f"{KEY}: 'a b': {NO_KEY}"),
        ("", f"{KEY}: '': {NO_KEY}"),
        ("-a", f"{KEY}: '-a': {NO_KEY}"),
        ("a\n", f"{KEY}: 'a\\n': {NO_KEY}"),
        ("ä", f"{KEY}: 'ä': {NO_KEY}"),
        ("x/", f"{KEY}: 'x/': {NO_KEY}"),
        ("/x", f"{KEY}: '/x': {NO_KEY}"),
        ("X.io/a", f"{KEY}: 'X.io/a': {NO_KEY}"),
        ("x/y/z", f"{KEY}: 'x/y/z': {NO_KEY}"),
        ("a" * 64, f"{KEY}: '{'a' * 64}': {NO_KEY}"),
        (f"{'a' * 254}/x", f"{KEY}: '{'a' * 79}...: {NO_KEY}"),
    ],
)
def test_what_is_no_label(key: str, problem: str) -> None:
    assert said({key: "v"}) == [problem]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("b c", f"{VALUE}: 'b c': can't be the value of a label; {WORDS}, or nothing at all"),
        ("c-", f"{VALUE}: 'c-': can't be the value of a label; {WORDS}, or nothing at all"),
        ("a/b", f"{VALUE}: 'a/b': can't be the value of a label; {WORDS}, or nothing at all"),
        ("v" * 64, f"{VALUE}: '{'v' * 64}': can't be the value of a label; {WORDS}, or nothing at all"),
    ],
)
def test_what_is_no_value_of_a_label(value: str, problem: str) -> None:
    assert said({"k": value}) == [problem]


def test_annotations_have_keys_like_labels_in_any_case_and_any_values() -> None:
    assert said({}, {"cni.projectcalico.org/ipAddrs": '["10.0.0.1"]', "X.io/a": "\n", "a": "b c"}) == []
    assert said({}, {"a b": ""}) == [
        NO_KEY.replace(
            "can't be the name of a label", "metadata.annotations: 'a b': can't be the name of an annotation"
        )
    ]


def test_annotations_have_a_size_together() -> None:
    assert said({}, {"a": "x" * (256 * 1024 - 1)}) == []
    assert said({}, {"a": "x" * (256 * 1024 - 3), "bb": "é"}) == [
        "metadata.annotations: '262146 bytes': are too much; 262144 at most for all annotations"
    ]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    assert len(said({"a b": "c d", "ok": "e f"}, {"g h": ""})) == 4
