"""Whether an API server has Calico's kinds by the names that we know them by."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from calipy.datastore.kubernetes.calls import Call
from calipy.datastore.kubernetes.client import Client
from calipy.datastore.stores import Unavailable

CALICO = "projectcalico.org"
"""Where Calico's kinds are by its API, as CustomResourceDefinitions or behind a server of its own."""
STORAGE = "crd.projectcalico.org"
"""How Calico without that API keeps them."""


class _Group(Struct, frozen=True, gc=False):
    name: str


class _GroupList(Struct, frozen=True, gc=False):
    groups: tuple[_Group, ...]


async def check_groups(client: Client) -> None:
    """Raises Unavailable where a server has Calico's objects in their storage form alone, or isn't an API server at
    all; Unauthorized."""
    body = await client.ask(Call(verb="get", path="/apis", resource="/apis", what="API groups"))
    try:
        names = {group.name for group in msgspec.json.decode(body, type=_GroupList).groups}
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Unavailable(f"{client.server}: doesn't answer as a kube-apiserver ({error}); check its URL") from error
    if STORAGE in names and CALICO not in names:
        reason = f"has Calico's objects in their storage form alone ({STORAGE}/v1)"
        raise Unavailable(f"{client.server}: {reason}; apply the definitions of {CALICO}/v3: kubectl apply -k crds/")
