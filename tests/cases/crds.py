"""The cases of `crds.yaml` as values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct

from calipy.resources.kinds import BY_NAME
from calipy.resources.metadata import Kind

_DEFAULTS = (
    "FelixConfiguration",
    "BGPConfiguration",
    "IPAMConfiguration",
    "ClusterInformation",
    "CalipyConfiguration",
    "KubeControllersConfiguration",
)
"""Kinds whose objects are called default."""
_LONG = 1025


class Case(Struct, frozen=True, kw_only=True):
    """An object, or a change of one, and what both judges say of it."""

    kind: Kind[Any]
    about: Literal["right", "wrong", "changes", "unchanged"]
    number: int
    new: dict[str, Any]
    old: dict[str, Any] | None = None
    fields: tuple[str, ...] = ()
    """Fields of which each judge names one; empty where nothing is wrong."""

    def __str__(self) -> str:
        return f"{self.kind.name}-{self.about}-{self.number}"


@cache
def cases() -> tuple[Case, ...]:
    """All of them."""
    return tuple(_cases())


def _cases() -> Iterator[Case]:
    for title, groups in yaml.safe_load((Path(__file__).parent / "crds.yaml").read_text()).items():
        kind = BY_NAME[title.partition(",")[0]]
        for about, given in groups.items():
            for number, each in enumerate(given):
                yield _case(kind, about, number, each)


def _case(kind: Kind[Any], about: Any, number: int, each: dict[str, Any]) -> Case:
    fields = tuple(each[name] for name in ("field", "also") if name in each)
    assert bool(fields) == (about in ("wrong", "changes")), each
    name = each.get("name", "default" if kind.name in _DEFAULTS else "a")
    new = _document(kind, name, each.get("spec", each.get("new")))
    if long := each.get("long"):
        _set(new, long, "a" * _LONG)
    old = _document(kind, name, each["old"]) if "old" in each else None
    return Case(kind=kind, about=about, number=number, new=new, old=old, fields=fields)


def _document(kind: Kind[Any], name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": "default"} if kind.namespaced else {})}
    document = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
    return msgspec.json.decode(
        msgspec.json.encode(document), type=dict[str, Any]
    )  # a copy: YAML shares what it aliases


def _set(document: dict[str, Any], path: str, value: str) -> None:
    *steps, last = path.replace("[", ".").replace("]", "").split(".")
    found: Any = document
    for step in steps:
        found = found[int(step)] if isinstance(found, list) else found[step]
    found[last] = value
