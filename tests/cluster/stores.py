"""The API server as the contract tests take it: emptied of what they write, with a back door that is kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

from calipy.resources import kinds
from calipy.resources.metadata import Key, Kind
from tests.cluster.control_plane import ApiServer

LOOSE = ("IPAMHandle",)
"""Kinds that tests write nonsense into: their schema lets anything in."""
WRITTEN = ("ipamhandles.projectcalico.org", "globalnetworksets.projectcalico.org", "networksets.projectcalico.org")
"""What the contract tests write."""
NAMESPACES = ("one", "two")
OWN_GROUPS = ("projectcalico.org", "calipy.io")
DEFINED = tuple(kind for kind in kinds.ALL if kind.group in OWN_GROUPS and kind.name != "Profile")
"""Kinds with a CustomResourceDefinition; a Profile exists in Calico's own server alone."""


def definitions(folder: Path) -> list[dict[str, Any]]:
    """Those in `folder`, as a later version would have them: with fields in spec and status that we don't know, and
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
    return {**schema, "properties": properties}


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


def prepare(api: ApiServer, folder: Path) -> None:
    """Definitions and namespaces are there."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": definitions(folder)})
    api.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text, check=True)
    api.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s", check=True)
    for name in NAMESPACES:
        api.kubectl("create", "namespace", name, check=False)
        api.kubectl("-n", name, "create", "serviceaccount", "default", check=False)


class ApiBackDoor:
    """An API server, as kubectl sees it."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    def read(self, key: Key) -> dict[str, Any]:
        """The whole object."""
        return msgspec.json.decode(self._api.kubectl("get", "--raw", self._path(key), check=True).stdout)

    def write(self, key: Key, document: dict[str, Any]) -> None:
        """Replaces the object, as somebody who knows more fields."""
        text = json.dumps(document)
        self._api.kubectl("replace", "--raw", self._path(key), "-f", "-", stdin=text, check=True)

    def create(self, key: Key, document: dict[str, Any]) -> None:
        """Makes an object."""
        path = self._path(key).rpartition("/")[0]
        self._api.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(document), check=True)

    def remove(self, key: Key) -> None:
        """The object is gone, finalizers or not."""
        patch = '{"metadata": {"finalizers": null}}'
        kind = kinds.BY_NAME[key.kind]
        where = (
            f"{kind.resource}.{kind.group}".rstrip("."),
            key.name,
            *(("-n", key.namespace) if key.namespace else ()),
        )
        self._api.kubectl("patch", *where, "--type=merge", "-p", patch)
        self._api.kubectl("delete", *where, "--ignore-not-found", "--wait=false", "--force", check=True)

    @staticmethod
    def _path(key: Key) -> str:
        kind = kinds.BY_NAME[key.kind]
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        within = f"/namespaces/{key.namespace}" if key.namespace else ""
        return f"{root}{within}/{kind.resource}/{key.name}"


def empty(api: ApiServer) -> None:
    """Nothing is left of what the contract tests write."""
    found = api.kubectl("get", ",".join(WRITTEN), "-A", "-o", "json", check=True).stdout
    for item in msgspec.json.decode(found)["items"]:
        meta = item["metadata"]
        if meta.get("finalizers"):
            key = Key(item["kind"], meta["name"], meta.get("namespace", ""))
            ApiBackDoor(api).remove(key)
    api.kubectl("delete", ",".join(WRITTEN), "--all", "-A", "--wait=false", check=True)
