"""YAML and JSON as Kubernetes' tools read them."""

from __future__ import annotations

import pytest

from calipy.ctl.texts import documents
from calipy.resources.metadata import Refused

READ = [
    ("a community is no number in base 60", "v: 63400:30", "63400:30"),
    ("a hardware address is none either", "v: 12:34:56:10:11:12", "12:34:56:10:11:12"),
    ("a date is text", "v: 2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
    ("yes is a word", "v: yes", "yes"),
    ("true is true", "v: true", True),
    ("an integer", "v: 64512", 64512),
    ("no octal", "v: 010", 10),
    ("hexadecimal", "v: 0x1f", 31),
    ("a float", "v: 1e3", 1000.0),
    ("an address", "v: 10.1", 10.1),
    ("a CIDR", "v: 10.1.0.0/16", "10.1.0.0/16"),
    ("an IPv6 address", "v: fd00::1", "fd00::1"),
    ("null", "v: ~", None),
    ("nothing", "v:", None),
    ("quoted", "v: 'true'", "true"),
    ("merged", "x: &x {v: 1}\n<<: *x\nw: 2", 1),
    ("JSON with its own escapes", '{"v": "a\\/\\ud83d\\ude00"}', "a/\N{GRINNING FACE}"),
    ("flow style", "{v: [a, b]}", ["a", "b"]),
]


@pytest.mark.parametrize(("text", "value"), [case[1:] for case in READ], ids=[case[0] for case in READ])
def test_values(text: str, value: object) -> None:
    (document,) = documents("here", text)
    assert isinstance(document, dict)
    assert (document["v"], type(document["v"])) == (value, type(value))


def test_several_documents() -> None:
    assert list(documents("here", "a: 1\n---\n---\nb: 2\n")) == [{"a": 1}, None, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2, column 1: '': is not YAML: 'a' stands twice"),
        ("1: x", "line 1, column 1: '': is not YAML: the key 1 is not text"),
        ("a: [1", "is not YAML"),
        ("a: !!python/object:os.system x", "is not YAML: could not determine a constructor"),
        ("a: \x01", "is not YAML"),
    ],
)
def test_what_is_wrong_is_placed(text: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        list(documents("here", text))
    assert said in str(refused.value)
