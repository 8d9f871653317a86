"""Tables of rows, several tables, and a matrix: fitted to a terminal, plain aligned text elsewhere, or JSON or YAML."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TextIO, TypeVar

from msgspec import Struct

from calipy.console.formats import Output, write_document
from calipy.console.terminals import is_terminal, rich_console, shows

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

T = TypeVar("T")
_GAP = "   "


class Column(Struct, Generic[T], frozen=True, gc=False):
    """One column: its title, and what stands in it for a row."""

    title: str
    cell: Callable[[T], str]
    wide: bool = False
    """Shown by `-o wide` only."""


class Table(Struct, Generic[T], frozen=True, gc=False):
    """Rows under a title. `name` is its key in JSON and YAML."""

    name: str
    title: str
    rows: Sequence[T]
    columns: Sequence[Column[T]]
    document: Callable[[Sequence[T]], object] | None = None
    """What JSON and YAML show of the rows; without it, the rows themselves."""


class Mark(Struct, frozen=True, gc=False):
    """One cell of a matrix: whether it is well (None: neither), and a word or two."""

    good: bool | None
    words: str = ""


class Matrix(Struct, frozen=True, gc=False, kw_only=True):
    """Marks by row and column; a pair without a mark shows as `-`. `name` is its key in JSON and YAML, where it is
    a list of {row, column, good, words}."""

    name: str
    title: str
    corner: str
    """What stands above the rows' names: `from \\ to`."""
    rows: Sequence[str]
    columns: Sequence[str]
    marks: Mapping[tuple[str, str], Mark]


Part = Table[Any] | Matrix


def show(
    rows: Sequence[T], columns: Sequence[Column[T]], output: Output, *,
    document: Callable[[Sequence[T]], object] | None = None, stream: TextIO | None = None,
) -> None:  # fmt: skip
    """One table on `stream` (standard output)."""
    _show([Table("", "", rows, columns, document)], output, stream or sys.stdout)


def show_parts(parts: Sequence[Part], output: Output, *, stream: TextIO | None = None) -> None:
    """Several titled tables and matrices; in JSON and YAML one object, with each part under its name."""
    to = stream or sys.stdout
    if output in ("json", "yaml"):
        write_document({part.name: _document(part) for part in parts}, output, to)
    else:
        _show(parts, output, to)


def plain_lines(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned text, one line a row, nothing cut; an empty cell shows as it is."""
    cells = [list(titles), *([cell.replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _show(parts: Sequence[Part], output: Output, stream: TextIO) -> None:
    if output in ("json", "yaml"):
        for part in parts:
            write_document(_document(part), output, stream)
    elif is_terminal(stream):
        _show_rich(parts, wide=output == "wide", stream=stream)
    else:
        _show_plain(parts, wide=output == "wide", stream=stream)


def _document(part: Part) -> object:
    if isinstance(part, Table):
        return part.document(part.rows) if part.document else part.rows
    return [
        {"row": row, "column": column, "good": mark.good, "words": mark.words}
        for (row, column), mark in part.marks.items()
    ]


def _show_plain(parts: Sequence[Part], *, wide: bool, stream: TextIO) -> None:
    for number, part in enumerate(parts):
        if number:
            stream.write("\n")
        if part.title:
            stream.write(f"{part.title}\n")
        titles, rows = _matrix_cells(part) if isinstance(part, Matrix) else _cells(part, wide)
        stream.writelines(f"{line}\n" for line in plain_lines(titles, rows))
    stream.flush()


def _cells(table: Table[T], wide: bool) -> tuple[list[str], list[list[str]]]:
    columns = [column for column in table.columns if wide or not column.wide]
    return [column.title for column in columns], [[column.cell(row) for column in columns] for row in table.rows]


_WORDS = {True: "ok", False: "FAIL", None: "-"}


def _matrix_cells(matrix: Matrix) -> tuple[list[str], list[list[str]]]:
    def cell(row: str, column: str) -> str:
        mark = matrix.marks.get((row, column), Mark(None))
        return f"{_WORDS[mark.good]} {mark.words}".rstrip()

    rows = [[row, *(cell(row, column) for column in matrix.columns)] for row in matrix.rows]
    return [matrix.corner, *matrix.columns], rows


def fitted(natural: Sequence[int], width: int) -> tuple[int, list[int]]:
    """The gap between columns, and their widths, within a terminal of `width`: the gap gives way first, then the widest
    columns, so that names and addresses stay in one piece as long as they can. Law: narrow columns are never cut for
    the sake of wider ones."""
    widths = list(natural)
    for gap in (3, 2, 1):
        if sum(widths) + gap * (len(widths) - 1) <= width:
            return gap, widths
    while sum(widths) + len(widths) - 1 > width and max(widths, default=0) > 1:
        widths[widths.index(max(widths))] -= 1
    return 1, widths


def _show_rich(parts: Sequence[Part], *, wide: bool, stream: TextIO) -> None:
    from rich.text import Text

    console = rich_console(stream)
    glyphs = _GLYPHS if shows(stream, "✓✗·") else _WORDS
    for number, part in enumerate(parts):
        if number:
            console.print()
        if part.title:
            console.print(Text(part.title, style="bold"))
        if isinstance(part, Matrix):
            titles, rows = [part.corner, *part.columns], _rich_marks(part, glyphs)
        else:
            titles, cells = _cells(part, wide)
            rows = [[Text(cell) for cell in row] for row in cells]
        console.print(_rich_table(titles, rows, console.width))


def _rich_table(titles: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    heads = [Text(title) for title in titles]
    natural = [max(text.cell_len for text in (head, *column)) for head, *column in zip(heads, *rows, strict=True)]
    gap, widths = fitted(natural, width)
    # One of the gap is the box's own divider.
    padding = (0, gap // 2, 0, (gap - 1) // 2)
    table = RichTable(box=box.SIMPLE_HEAD, header_style="bold", padding=padding, pad_edge=False, show_edge=False)
    for head, wide in zip(heads, widths, strict=True):
        # What doesn't fit the width goes on in the next line; nothing is cut.
        table.add_column(head, overflow="fold", width=wide)
    for row in rows:
        table.add_row(*row)
    return table


_GLYPHS = {True: "✓", False: "✗", None: "·"}
_STYLES = {True: "green", False: "bold red", None: "dim"}


def _rich_marks(matrix: Matrix, glyphs: Mapping[bool | None, str]) -> list[list[Text]]:
    from rich.text import Text

    def cell(row: str, column: str) -> Text:
        mark = matrix.marks.get((row, column), Mark(None))
        return Text(f"{glyphs[mark.good]} {mark.words}".rstrip(), style=_STYLES[mark.good])

    return [[Text(row, style="bold"), *(cell(row, column) for column in matrix.columns)] for row in matrix.rows]
