"""CustomResourceDefinitions as the contract tests need them: looser than ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from calipy.resources import kinds
from calipy.resources.metadata import Kind

LOOSE = ("IPAMHandle",)
"""Kinds that tests write nonsense into: their schema lets anything in."""
OWN_GROUPS = ("projectcalico.org", "calipy.io")
DEFINED = tuple(kind for kind in kinds.ALL if kind.group in OWN_GROUPS and kind.name != "Profile")
"""Kinds with a CustomResourceDefinition; a Profile exists in Calico's own server alone."""


def definitions(folder: Path) -> list[dict[str, Any]]:
    """Those in `folder`, as a later version would have them: with fields that we don't know, and
    for the LOOSE without rules. Where there is no folder, of all kinds without any schema."""
    if not folder.is_dir():
        return [_definition(kind, _ANYTHING) for kind in DEFINED]
    found = [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document and document["kind"] == "CustomResourceDefinition"
    ]
    for document in found:
        for version in document["spec"]["versions"]:
            loosened = document["spec"]["names"]["kind"] in LOOSE
            version["schema"]["openAPIV3Schema"] = _later(version["schema"]["openAPIV3Schema"], loosened=loosened)
    return found


_ANYTHING: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _later(schema: dict[str, Any], *, loosened: bool) -> dict[str, Any]:
    if loosened:
        return _ANYTHING
    open_ = {"x-kubernetes-preserve-unknown-fields": True}
    properties = {
        name: {**part, **open_} if part.get("type") == "object" and name != "metadata" else part
        for name, part in schema["properties"].items()
    }
    return {**schema, **open_, "properties": properties}


def _definition(kind: Kind[Any], schema: dict[str, Any]) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
    }  # fmt: skip
    if kind.definition is not None and kind.definition.status:
        version["subresources"] = {"status": {}}
    names = {"kind": kind.kind, "plural": kind.resource, "singular": kind.kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.resource}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }
