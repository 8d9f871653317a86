"""What is asked of an API server: verb, path, and the object that is meant. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct, structs

from calipy.resources.metadata import Key, Kind

Verb = Literal["get", "list", "watch", "create", "patch", "delete"]
"""As RBAC calls them."""
_METHODS: Mapping[Verb, str] = {
    "get": "GET", "list": "GET", "watch": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"
}  # fmt: skip
MERGE_PATCH = "application/merge-patch+json"


class Call(Struct, frozen=True, gc=False, kw_only=True):
    """One request."""

    verb: Verb
    path: str
    """From the server's root on, escaped."""
    resource: str
    """As RBAC names it: `pods/status`, `ipamblocks.projectcalico.org`."""
    what: str
    """The object or the kind, for messages."""
    namespace: str = ""
    query: Mapping[str, str] = {}
    body: bytes = b""
    content_type: str = "application/json"

    @property
    def method(self) -> str:
        """HTTP's."""
        return _METHODS[self.verb]


def on_object(verb: Verb, kind: Kind[Any], key: Key, *, subresource: str = "", body: bytes = b"") -> Call:
    """One object, or a subresource of it."""
    behind = f"/{subresource}" if subresource else ""
    return Call(
        verb=verb,
        path=f"{_collection(kind, key.namespace)}/{quote(key.name, safe='')}{behind}",
        resource=_resource(kind, behind),
        what=str(key),
        namespace=key.namespace,
        body=body,
        content_type=MERGE_PATCH if verb == "patch" else "application/json",
    )


def on_kind(verb: Verb, kind: Kind[Any], *, namespace: str = "", query: Mapping[str, str] | None = None) -> Call:
    """All objects of a kind, in one namespace or everywhere."""
    return Call(
        verb=verb, path=_collection(kind, namespace), resource=_resource(kind), what=kind.plural,
        namespace=namespace, query=query or {},
    )  # fmt: skip


def creation(kind: Kind[Any], key: Key, body: bytes) -> Call:
    """A new object."""
    return structs.replace(on_object("create", kind, key, body=body), path=_collection(kind, key.namespace))


def _collection(kind: Kind[Any], namespace: str) -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{within}/{kind.resource}"


def _resource(kind: Kind[Any], behind: str = "") -> str:
    return f"{kind.resource}{behind}.{kind.group}" if kind.group else f"{kind.resource}{behind}"
