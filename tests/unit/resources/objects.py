"""How the tables of wrong objects are read: spec as YAML would hold it, and the problems as an operator sees them."""

from __future__ import annotations

from typing import Any

import msgspec

from calipy.resources.metadata import Kind, decode


def made(kind: Kind[Any], spec: dict[str, Any], name: str = "a", **metadata: Any) -> Any:
    """An object of `kind`, decoded from its JSON."""
    document = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }
    return decode(kind, msgspec.json.encode(document))


def said(kind: Kind[Any], value: Any) -> list[str]:
    """Each problem as it is printed."""
    return [str(problem) for problem in kind.problems(value)]
