"""Which groups an API server has, and so where each kind is."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from calipy.datastore.kubernetes.client import Client
from calipy.datastore.kubernetes.places import Place
from calipy.resources.metadata import Kind


class Groups(Struct, frozen=True, gc=False):
    """The groups of one server."""

    @classmethod
    async def discovered(cls, client: Client) -> Groups:
        """As the server tells them."""
        return cls()

    def place(self, kind: Kind[Any]) -> Place:
        """Where it has `kind`."""
        return Place(group=kind.group, version=kind.version, resource=kind.resource)
