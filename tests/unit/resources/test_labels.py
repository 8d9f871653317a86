"""Labels and annotations: what may be one, and what is said of what may not."""

from __future__ import annotations

import pytest

from calipy.resources.labels import label_problems
from calipy.resources.metadata import ObjectMeta

WORDS = "letters, digits, dashes, underscores, dots; a letter or digit at both ends"
KEY, VALUE = "metadata.labels", "metadata.labels[k]"


def said(labels: dict[str, str], annotations: dict[str, str] | None = None) -> list[str]:
    return [str(problem) for problem in label_problems(ObjectMeta(labels=labels, annotations=annotations or {}))]


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
        ("a b", f"{KEY}: 'a b': can't be a key; {WORDS}"),
        ("", f"{KEY}: '': can't be a key; {WORDS}"),
        ("-a", f"{KEY}: '-a': can't be a key; {WORDS}"),
        ("a\n", f"{KEY}: 'a\\n': can't be a key; {WORDS}"),
        ("ä", f"{KEY}: 'ä': can't be a key; {WORDS}"),
        ("x/", f"{KEY}: 'x/': can't be a key; {WORDS}"),
        ("/x", f"{KEY}: '/x': is a key with nothing before its slash; leave the slash out"),
        ("X.io/a", f"{KEY}: 'X.io/a': is a key whose part before the slash is no DNS name; write example.com/name"),
        ("x/y/z", f"{KEY}: 'x/y/z': is a key whose part before the slash is no DNS name; write example.com/name"),
        ("a" * 64, f"{KEY}: '{'a' * 64}': is a key whose name has 64 characters; 63 at most"),
        (f"{'a' * 254}/x", f"{KEY}: '{'a' * 79}...: is a key with 254 characters before its slash; 253 at most"),
    ],
)
def test_what_is_no_label(key: str, problem: str) -> None:
    assert said({key: "v"}) == [problem]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("b c", f"{VALUE}: 'b c': can't be a label's value; {WORDS}; or nothing"),
        ("c-", f"{VALUE}: 'c-': can't be a label's value; {WORDS}; or nothing"),
        ("a/b", f"{VALUE}: 'a/b': can't be a label's value; {WORDS}; or nothing"),
        ("v" * 64, f"{VALUE}: '{'v' * 64}': is a label's value of 64 characters; 63 at most"),
    ],
)
def test_what_is_no_value_of_a_label(value: str, problem: str) -> None:
    assert said({"k": value}) == [problem]


def test_annotations_have_keys_like_labels_in_any_case_and_any_values() -> None:
    assert said({}, {"cni.projectcalico.org/ipAddrs": '["10.0.0.1"]', "X.io/a": "\n", "a": "b c"}) == []
    assert said({}, {"a b": ""}) == [f"metadata.annotations: 'a b': can't be a key; {WORDS}"]


def test_annotations_have_a_size_together() -> None:
    assert said({}, {"a": "x" * (256 * 1024 - 1)}) == []
    assert said({}, {"a": "x" * (256 * 1024 - 3), "bb": "é"}) == [
        "metadata.annotations: '': take 262146 bytes together; 262144 at most, keys and values"
    ]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    assert len(said({"a b": "c d", "ok": "e f"}, {"g h": ""})) == 4
