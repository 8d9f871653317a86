"""CustomResourceDefinitions: the folder holds what the kinds say, and the kinds' own judges agree with the table that
an API server is tried with, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from calipy.resources.definitions import Constraint, Definition, Validation
from calipy.resources.ip_pools import KIND as POOL
from calipy.resources.kinds import ALL
from calipy.resources.metadata import Refused, accept, decode, name_problems
from calipy.resources.schema import crd, files, schema
from tests.cases.crds import Case, cases

CRDS = Path(__file__).parents[3] / "crds"
DEFINED = [kind for kind in ALL if kind.definition is not None]


def test_the_folder_holds_what_the_kinds_say() -> None:
    """Where this fails: make crds."""
    there = {path.name: path.read_text() for path in CRDS.iterdir()}
    wanted = files(ALL)
    assert there.keys() == wanted.keys()
    assert [name for name in wanted if there[name] != wanted[name]] == []


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema with its path, `spec.peers[].port`."""
    yield path, node
    for name, below in node.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}".removeprefix("."))
    for keyword in ("items", "additionalProperties"):
        if keyword in node:
            yield from nodes(node[keyword], f"{path}[]")


@pytest.mark.parametrize("kind", DEFINED, ids=lambda kind: kind.name)
def test_every_field_says_what_it_is(kind: Any) -> None:
    silent = [
        path
        for path, node in nodes(schema(kind, kind.definition))
        if not path.endswith("[]") and not path.startswith("metadata") and not node.get("description")
    ]
    assert [path for path in silent if path not in ("spec", "status")] == []


@pytest.mark.parametrize("kind", DEFINED, ids=lambda kind: kind.name)
def test_schemas_are_structural(kind: Any) -> None:
    """As Kubernetes asks: every node has a type, but for those of a number or a text."""
    for path, node in nodes(schema(kind, kind.definition)):
        assert ("type" in node) != bool(node.get("x-kubernetes-int-or-string")), path
        assert not node.keys() & {"$ref", "oneOf", "definitions"}, path
        assert set(node.get("required", ())) <= node.get("properties", {}).keys(), path


def test_a_field_that_is_not_there_is_named() -> None:
    for definition in (
        Definition(constraints=(Constraint(path="spec.nothing", minimum=1),)),
        Definition(validations=(Validation(path="spec.nothing", rule="true", message=""),)),
    ):
        with pytest.raises(ValueError, match=r"spec\.nothing: there is no such field"):
            schema(POOL, definition)


def test_kinds_that_an_api_server_knows_have_none() -> None:
    with pytest.raises(ValueError, match="Node has no definition"):
        crd(next(kind for kind in ALL if kind.name == "Node"))


def fields_named(case: Case) -> list[str]:
    """Fields that the kind's own judges name; none where they find nothing wrong."""
    try:
        old = None if case.old is None else accept(case.kind, decode(case.kind, msgspec.json.encode(case.old)))
        value = accept(case.kind, decode(case.kind, msgspec.json.encode(case.new)), old)
    except Refused as refused:
        return [problem.field for problem in refused.problems]
    return [problem.field for problem in name_problems(case.kind, value.metadata)]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_kinds_own_judges(case: Case) -> None:
    named = fields_named(case)
    if case.fields:
        assert set(case.fields) & set(named), named
    else:
        assert named == []
