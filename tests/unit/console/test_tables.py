"""Tables, matrices, JSON and YAML: what a pipe gets, and what a terminal gets."""

from __future__ import annotations

import io
import ipaddress
from collections.abc import Callable

import msgspec
import pytest
import yaml
from msgspec import Struct

from calipy.console.tables import Column, Mark, Matrix, Table, fitted, plain_lines, show, show_parts


class Pod(Struct, frozen=True, rename="camel"):
    name: str
    node_name: str
    address: ipaddress.IPv4Address


PODS = [
    Pod("web-7d4b9c[0]", "n1", ipaddress.ip_address("10.244.0.1")),
    Pod("a", "a-node-with-a-very-long-name-that-nobody-would-want-to-see-cut", ipaddress.ip_address("10.244.10.133")),
]
OnTerminal = Callable[..., str]
COLUMNS = [
    Column[Pod]("NAME", lambda pod: pod.name),
    Column[Pod]("ADDRESS", lambda pod: str(pod.address)),
    Column[Pod]("NODE", lambda pod: pod.node_name, wide=True),
]
MATRIX = Matrix(
    name="reach", title="Who reaches whom", corner="from \\ to", rows=["a", "b"], columns=["a", "b"],
    marks={("a", "b"): Mark(True, "0.3 ms"), ("b", "a"): Mark(False, "no answer"), ("a", "a"): Mark(None, "itself")},
)  # fmt: skip


def test_a_pipe_gets_aligned_text_with_nothing_cut() -> None:
    stream = io.StringIO()
    show(PODS, COLUMNS, "wide", stream=stream)
    assert stream.getvalue() == (
        "NAME            ADDRESS         NODE\n"
        "web-7d4b9c[0]   10.244.0.1      n1\n"
        "a               10.244.10.133   a-node-with-a-very-long-name-that-nobody-would-want-to-see-cut\n"
    )


def test_wide_columns_show_with_wide_only() -> None:
    stream = io.StringIO()
    show(PODS, COLUMNS, "table", stream=stream)
    assert "NODE" not in stream.getvalue()


def test_a_line_break_in_a_cell_does_not_break_the_row() -> None:
    assert plain_lines(["A", "B"], [["x\ny", "z"]]) == ["A     B", "x y   z"]


def test_json_has_the_structs_own_field_names() -> None:
    stream = io.StringIO()
    show(PODS, COLUMNS, "json", stream=stream)
    assert msgspec.json.decode(stream.getvalue())[0] == {
        "name": "web-7d4b9c[0]", "nodeName": "n1", "address": "10.244.0.1",
    }  # fmt: skip


def test_yaml_keeps_the_order_of_fields_and_text_that_looks_like_something_else() -> None:
    stream = io.StringIO()
    rows = [{"name": "yes", "address": "1.0", "at": "2026-01-31T12:00:00Z", "big": "1e3", "empty": ""}]
    show(rows, [], "yaml", stream=stream)
    assert yaml.safe_load(stream.getvalue()) == rows
    assert stream.getvalue().splitlines()[0] == "- name: 'yes'"


def test_document_says_what_json_shows_of_the_rows() -> None:
    stream = io.StringIO()
    show(PODS, COLUMNS, "json", document=lambda pods: {"items": [pod.name for pod in pods]}, stream=stream)
    assert msgspec.json.decode(stream.getvalue()) == {"items": ["web-7d4b9c[0]", "a"]}


def test_a_terminal_gets_every_character_within_its_width(on_terminal: OnTerminal) -> None:
    shown = on_terminal(50, lambda stream: show(PODS, COLUMNS, "wide", stream=stream))
    assert max(map(len, shown.splitlines())) <= 50
    for word in ("web-7d4b9c[0]", "10.244.10.133"):
        assert word in shown, shown
    # Folded over several lines, but whole.
    start = shown.index("NODE")
    node = "".join(line[start:].strip() for line in shown.splitlines()[3:])
    assert node == PODS[1].node_name, shown


def test_a_dumb_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch, on_terminal: OnTerminal) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = on_terminal(50, lambda stream: show(PODS, COLUMNS, "table", stream=stream))
    assert shown.splitlines()[0] == "NAME            ADDRESS"


def test_a_matrix_in_a_pipe_says_ok_and_fail_in_words() -> None:
    stream = io.StringIO()
    show_parts([MATRIX], "table", stream=stream)
    assert stream.getvalue() == (
        "Who reaches whom\n"
        "from \\ to   a                b\n"
        "a           - itself         ok 0.3 ms\n"
        "b           FAIL no answer   -\n"
    )


def test_a_matrix_on_a_terminal_has_marks_that_its_encoding_knows(on_terminal: OnTerminal) -> None:
    def write(stream: io.TextIOWrapper) -> None:
        show_parts([MATRIX], "table", stream=stream)

    assert "✓ 0.3 ms" in on_terminal(80, write)
    assert "ok 0.3 ms" in on_terminal(80, write, encoding="ascii")


def test_several_parts_are_titled_in_text_and_named_in_json() -> None:
    parts = [Table("pods", "Pods", PODS, COLUMNS), MATRIX]
    text, document = io.StringIO(), io.StringIO()
    show_parts(parts, "table", stream=text)
    show_parts(parts, "json", stream=document)
    assert [line for line in text.getvalue().splitlines() if line in ("Pods", "Who reaches whom", "")] == [
        "Pods", "", "Who reaches whom",
    ]  # fmt: skip
    decoded = msgspec.json.decode(document.getvalue())
    assert list(decoded) == ["pods", "reach"]
    assert {"row": "b", "column": "a", "good": False, "words": "no answer"} in decoded["reach"]


def test_what_has_no_form_in_json_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(NotImplementedError, match="object has no form in JSON"):
        show([object()], [], "json", stream=io.StringIO())


@pytest.mark.parametrize(
    ("natural", "width", "gap", "widths"),
    [
        ([5, 10, 4], 80, 3, [5, 10, 4]),
        ([5, 10, 4], 25, 3, [5, 10, 4]),
        ([5, 10, 4], 24, 2, [5, 10, 4]),
        ([5, 10, 4], 21, 1, [5, 10, 4]),
        ([5, 10, 4], 18, 1, [5, 7, 4]),
        ([5, 40, 60], 60, 1, [5, 26, 27]),
        ([5, 5], 2, 1, [1, 1]),
        ([], 10, 3, []),
    ],
)
def test_the_gap_gives_way_first_and_then_the_widest_column(
    natural: list[int], width: int, gap: int, widths: list[int]
) -> None:
    assert fitted(natural, width) == (gap, widths)
