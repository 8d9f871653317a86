"""Which groups an API server has, and so where each kind is."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from calipy.datastore.kubernetes.calls import Call
from calipy.datastore.kubernetes.client import Client
from calipy.datastore.kubernetes.places import Place
from calipy.datastore.stores import Unavailable
from calipy.resources.metadata import Kind

CALICO = "projectcalico.org"
"""Where Calico's kinds are by its API, as CustomResourceDefinitions or behind a server of its own."""
STORAGE = "crd.projectcalico.org"
"""How Calico without that API keeps them."""


class _Group(Struct, frozen=True, gc=False):
    name: str


class _GroupList(Struct, frozen=True, gc=False):
    groups: tuple[_Group, ...]


class Groups(Struct, frozen=True, gc=False):
    """The groups of one server."""

    @classmethod
    async def discovered(cls, client: Client) -> Groups:
        """As the server tells them. Raises Unavailable, also where it has Calico's objects in their storage form
        alone; Unauthorized."""
        body = await client.ask(Call(verb="get", path="/apis", resource="/apis", what="API groups"))
        try:
            names = {group.name for group in msgspec.json.decode(body, type=_GroupList).groups}
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Unavailable(
                f"{client.server}: doesn't answer as a kube-apiserver ({error}); check its URL"
            ) from error
        if STORAGE in names and CALICO not in names:
            reason = f"has Calico's objects in their storage form alone ({STORAGE}/v1)"
            raise Unavailable(
                f"{client.server}: {reason}; apply the definitions of {CALICO}/v3: kubectl apply -k crds/"
            )
        return cls()

    def place(self, kind: Kind[Any]) -> Place:
        """Where it has `kind`."""
        return Place(group=kind.group, version=kind.version, resource=kind.resource)
