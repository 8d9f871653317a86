"""Lists, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import msgspec

from calipy.datastore.kubernetes.calls import on_kind
from calipy.datastore.kubernetes.client import Client
from calipy.datastore.kubernetes.objects import ObjectList, Objects, number, typed
from calipy.datastore.stores import Page, Stored, Unavailable
from calipy.resources.metadata import Kind, R

_AT_ONCE = 100
"""Objects that are decoded before others have their turn on the loop."""


async def pages(
    client: Client, objects: Objects, kind: Kind[R], *, namespace: str, labels: Mapping[str, str],
    page_size: int,
) -> AsyncGenerator[Page[R], None]:  # fmt: skip
    """All pages are of one revision. Raises Expired where the server has forgotten it in the midst of the list."""
    query = {"limit": str(page_size)}
    if labels:
        query["labelSelector"] = ",".join(f"{name}={value}" for name, value in labels.items())
    while True:
        call = on_kind("list", kind, namespace=namespace, query=query)
        page = _decoded(await client.ask(call), kind)
        revision = number(page.metadata.resource_version)
        yield Page(items=await _items(objects, kind, page), revision=revision)
        if not page.metadata.continue_:
            return
        query["continue"] = page.metadata.continue_


async def _items(objects: Objects, kind: Kind[R], page: ObjectList) -> tuple[Stored[R], ...]:
    found: list[Stored[R]] = []
    for index, item in enumerate(page.items or ()):
        if index % _AT_ONCE == 0:
            await asyncio.sleep(0)
        if one := objects.of_many(kind, typed(kind, item)):
            found.append(one)
    return tuple(found)


def _decoded(body: bytes, kind: Kind[R]) -> ObjectList:
    try:
        return msgspec.json.decode(body, type=ObjectList)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        remedy = "check that the server in the kubeconfig is a kube-apiserver"
        raise Unavailable(f"{kind.plural}: the answer is no list: {error}; {remedy}") from error
