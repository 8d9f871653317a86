"""What docs/ says against what there is: the tests and modules that it names, fields, defaults and refusals."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import Struct, inspect

from calipy.resources import kinds
from calipy.resources.conditions import Condition
from calipy.resources.felix_configurations import PARAMETERS
from calipy.resources.metadata import ObjectMeta, Refused
from tests.unit.resources.objects import made, said

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
POLICY, ARCHITECTURE, README = ROOT / "docs/policy.md", ROOT / "docs/architecture.md", ROOT / "README.md"
HELD_BY = "held by"
POLICY_KINDS = (
    "KubernetesNetworkPolicy", "NetworkPolicy", "GlobalNetworkPolicy", "Tier", "NetworkSet", "GlobalNetworkSet",
    "Profile",
)  # fmt: skip

_SPAN = re.compile(r"`([^`]+)`")
_OF_TESTS = re.compile(r"(unit|contract|netns|lab|cluster|cases)/")
_MODULE = re.compile(r"(?<![-\w/.])(?:calipy\.)?((?:[a-z_]+\.)+[a-z_]+)(?![\w/])")


class Line(Struct, frozen=True):
    """A row of a table: the headings that it stands under, `Calico's kinds / EntityRule`, and its cells by their
    columns."""

    under: str
    cells: dict[str, str]


def tables(path: Path) -> Iterator[Line]:
    """All rows of all tables of a page."""
    headings: list[str] = []
    columns: list[str] = []
    for text in path.read_text().splitlines():
        if text.startswith("#"):
            mark, _, title = text.partition(" ")
            headings = [*headings[: len(mark) - 1], title]
        if not text.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in text.split("|")[1:-1]]
        if not columns:
            columns = cells
        elif set(text) - set("| -"):
            yield Line(" / ".join(headings[1:]), dict(zip(columns, cells, strict=True)))


def spans(text: str) -> list[str]:
    """What stands in backquotes."""
    return _SPAN.findall(text)


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Names of the test functions of a file."""
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def problem_of_path(name: str) -> str:
    """Why `unit/test_docs.py::test_wrong` isn't there; empty if it is."""
    file, _, test = name.partition("::")
    path = TESTS / file
    if not path.exists():
        return f"{name}: there is no tests/{file}"
    return f"{name}: {file} has no such test" if test and test not in functions_of(path) else ""


def problem_of_case(name: str) -> str:
    """Why a case, or `case: packet`, isn't there; empty if it is."""
    file, _, packet = name.partition(": ")
    path = TESTS / "cases/policy" / f"{file}.yaml"
    if not path.is_file():
        return f"{name}: there is no case {file}"
    sent = {" ".join(line.partition(" : ")[0].split()) for line in path.read_text().splitlines()}
    return f"{name}: no packet of {file} is written so" if packet and packet not in sent else ""


def problem(name: str) -> str:
    """Why something that holds a line isn't there."""
    return problem_of_path(name) if _OF_TESTS.match(name) else problem_of_case(name)


@pytest.mark.parametrize("path", [POLICY, ARCHITECTURE, README], ids=lambda path: path.name)
def test_every_test_that_is_named_is_there(path: Path) -> None:
    named = [span for span in spans(path.read_text()) if _OF_TESTS.match(span)]
    assert [found for found in map(problem_of_path, named) if found] == []


def test_each_line_is_held_by_tests_and_cases_that_are_there() -> None:
    lines = [line for line in tables(POLICY) if HELD_BY in line.cells]
    assert [line for line in lines if not spans(line.cells[HELD_BY])] == []
    named = [span for line in lines for span in spans(line.cells[HELD_BY])]
    assert [found for found in map(problem, named) if found] == []


def test_every_module_that_is_named_is_there() -> None:
    packages = {each.name for each in (ROOT / "calipy").iterdir() if each.is_dir()}
    named = {found[1] for found in _MODULE.finditer(ARCHITECTURE.read_text()) if found[1].partition(".")[0] in packages}
    assert "felix.ledger" in named
    assert sorted(name for name in named if not is_module(name)) == []


def test_the_map_of_the_tree_names_each_package_and_no_other() -> None:
    named = set(re.findall(r"\bcalipy/([a-z]+)\b", README.read_text()))
    assert named == {path.parent.name for path in (ROOT / "calipy").glob("*/__init__.py")}


def is_module(name: str) -> bool:
    """True if it is one of calipy's modules, or stands in one."""
    parts = name.split(".")
    there = [ROOT / "calipy" / "/".join(parts[:length]) for length in range(2, len(parts) + 1)]
    return any(path.with_suffix(".py").is_file() or (path / "__init__.py").is_file() for path in there)


def policy_structs() -> Iterator[tuple[str, type[Struct]]]:
    """Each struct that stands in the spec or status of a kind of policy, and the part of the page that is its."""
    for name in POLICY_KINDS:
        part = "Kubernetes NetworkPolicy" if name == "KubernetesNetworkPolicy" else "Calico's kinds"
        document = kinds.BY_NAME[name].type
        for found in structs_in(inspect.type_info(document)):
            if found is not document:
                yield part, found


def structs_in(found: Any) -> Iterator[type[Struct]]:
    """The structs that a type consists of; Kubernetes' metadata and conditions are left out."""
    match found:
        case inspect.StructType(cls=cls, fields=fields) if cls not in (ObjectMeta, Condition):
            yield cls
            for field in fields:
                yield from structs_in(field.type)
        case inspect.UnionType(types=types):
            for each in types:
                yield from structs_in(each)
        case inspect.VarTupleType(item_type=item):
            yield from structs_in(item)


STRUCTS = sorted(set(policy_structs()), key=str)


@pytest.mark.parametrize(("part", "struct"), STRUCTS, ids=[struct.__name__ for _, struct in STRUCTS])
def test_each_field_of_policy_has_a_line(part: str, struct: type[Struct]) -> None:
    title = re.compile(rf"\b{struct.__name__.removeprefix('Kubernetes')}\b")
    mine = [line for line in tables(POLICY) if line.under.startswith(part) and title.search(line.under)]
    told = {span for line in mine for span in spans(line.cells["field"])}
    assert [field.encode_name for field in msgspec.structs.fields(struct) if field.encode_name not in told] == []


def test_policys_structs_are_found() -> None:
    names = {struct.__name__ for _, struct in STRUCTS}
    assert {"KubernetesNetworkPolicySpec", "IPBlock", "LabelSelectorRequirement", "EntityRule", "TierSpec"} <= names


def test_settings_and_their_defaults() -> None:
    mine = [line for line in tables(POLICY) if line.under == "FelixConfiguration"]
    in_force = {spans(line.cells["field"])[0]: line.cells["default"] for line in mine if HELD_BY in line.cells}
    idle = {span for line in mine if HELD_BY not in line.cells for span in spans(line.cells["field"])}
    defaults = {name: parameter.default for name, parameter in PARAMETERS.items() if parameter.effect}
    assert "nftablesFilterDenyAction" in in_force
    assert in_force == {name: shown(defaults[name]) for name in in_force}
    assert idle
    assert sorted(name for name in idle if PARAMETERS[name].effect) == []


def shown(default: object) -> str:
    """A default as a table has it."""
    if isinstance(default, bool | None):
        return {True: "true", False: "false", None: "none"}[default]
    return f"{default:g}" if isinstance(default, float) else str(default)


REFUSALS = [line.cells for line in tables(POLICY) if "what is said" in line.cells]


@pytest.mark.parametrize("row", REFUSALS, ids=[f"{row['kind']} {row['spec']}" for row in REFUSALS])
def test_what_is_refused_is_refused_with_these_words(row: dict[str, str]) -> None:
    kind, (spec,) = kinds.BY_NAME[row["kind"]], spans(row["spec"])
    try:
        problems = said(kind, made(kind, yaml.safe_load(spec)))
    except Refused as refused:
        problems = [str(refused)]
    assert any(row["what is said"] in each for each in problems), problems
