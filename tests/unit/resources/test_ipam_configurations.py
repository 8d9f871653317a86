"""IPAMConfiguration: what is right and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.resources.ipam_configurations import DEFAULT, KIND
from tests.unit.resources.objects import made, said

RIGHT: list[dict[str, Any]] = [
    {},
    {"strictAffinity": True, "autoAllocateBlocks": False, "maxBlocksPerHost": 1_000_000},
    {"ipCooldownSeconds": 1200},
    {"maxBlocksPerHost": 4},
]


@pytest.mark.parametrize("spec", RIGHT, ids=str)
def test_right(spec: dict[str, Any]) -> None:
    assert said(KIND, made(KIND, spec, "default")) == []


def test_what_is_in_force_without_an_object_is_right_too() -> None:
    assert said(KIND, DEFAULT) == []


# name | spec | each problem: field, value, reason, remedy
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("other", {}, ["metadata.name: 'other': only one object is read; name it default"]),
    (
        "default",
        {"autoAllocateBlocks": False},
        [
            "spec.autoAllocateBlocks: False: without new blocks every address would be borrowed; "
            "set strictAffinity to true as well"
        ],
    ),
    (
        "default",
        {"strictAffinity": True, "maxBlocksPerHost": 1_000_001},
        ["spec.maxBlocksPerHost: 1000001: is out of range; 0 to 1000000"],
    ),
    ("default", {"maxBlocksPerHost": -1}, ["spec.maxBlocksPerHost: -1: is out of range; 0 to 1000000"]),
    ("default", {"ipCooldownSeconds": 1201}, ["spec.ipCooldownSeconds: 1201: is out of range; 0 to 1200"]),
]


@pytest.mark.parametrize(("name", "spec", "problems"), WRONG, ids=[str(row[1]) for row in WRONG])
def test_wrong(name: str, spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec, name)) == problems
