"""A cluster's store: its Kubernetes API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from types import MappingProxyType

from calipy.datastore.kubernetes import derived
from calipy.datastore.kubernetes.calls import on_object
from calipy.datastore.kubernetes.client import Client, Observe
from calipy.datastore.kubernetes.credentials import Credentials
from calipy.datastore.kubernetes.groups import check_groups
from calipy.datastore.kubernetes.lists import pages
from calipy.datastore.kubernetes.objects import Objects
from calipy.datastore.kubernetes.watches import Lasting, Watcher
from calipy.datastore.kubernetes.writes import Writes
from calipy.datastore.stores import Event, NotFound, Page, Store, Stored
from calipy.resources.metadata import Key, Kind, R


def unobserved(verb: str, resource: str, code: str) -> None:
    """For whoever counts no requests."""


class KubernetesStore(Store):
    """A store on an API server. Make it by `open`; use it on that event loop alone."""

    def __init__(self, client: Client, objects: Objects, lasting: Lasting) -> None:
        self._client = client
        self._objects = objects
        self._writes = Writes(client, objects)
        self._watcher = Watcher(client, objects, lasting)

    @classmethod
    async def open(
        cls, credentials: Credentials, *, own_node: str = "", observe: Observe = unobserved, timeout_s: float = 30.0,
        lasting: Lasting = Lasting(),  # noqa: B008  frozen
    ) -> KubernetesStore:  # fmt: skip
        """The server's store, once it has said which groups it has. Of pods on other nodes than `own_node` listings and
        watches keep what policy and routes need; without one all are kept whole. Raises Unavailable, Unauthorized."""
        client = Client(credentials, observe=observe, timeout_s=timeout_s)
        try:
            await check_groups(client)
        except BaseException:
            await client.close()
            raise
        return cls(client, Objects(own_node), lasting)

    async def get(self, kind: Kind[R], name: str, namespace: str = "") -> Stored[R]:
        """The object; raises NotFound, or Refused if it can't be decoded."""
        key = Key(kind.name, name, namespace)
        if derived.is_derived(kind):
            raise NotFound(f"{key} does not exist: a Kubernetes cluster has no {kind.plural} of its own")
        try:
            text = await self._client.ask(on_object("get", kind, key))
        except NotFound:
            self._objects.misfits.forget(key)
            raise
        return self._objects.one(kind, text)

    async def list(
        self, kind: Kind[R], *, namespace: str = "", labels: Mapping[str, str] | None = None, page_size: int = 500
    ) -> AsyncIterator[Page[R]]:
        """All pages show one moment. Raises Expired where the server has forgotten it before the last."""
        if derived.is_derived(kind):
            yield derived.nothing()
            return
        if not namespace and not labels:
            self._objects.misfits.restart(kind.name)
        found = pages(
            self._client, self._objects, kind, namespace=namespace, labels=labels or {},
            page_size=page_size,
        )  # fmt: skip
        async with aclosing(found):
            async for page in found:
                yield page

    async def watch(self, kind: Kind[R], since: int) -> AsyncIterator[Event[R]]:
        """The changes after revision `since`. Raises Expired."""
        if derived.is_derived(kind):
            events = derived.silence(kind)
        else:
            events = self._watcher.follow(kind, since)
        async with aclosing(events):
            async for event in events:
                yield event

    async def create(self, kind: Kind[R], value: R) -> Stored[R]:
        """Stores a new object; raises Exists, Refused."""
        if derived.is_derived(kind):
            raise derived.refusal(kind.key(value))
        return await self._writes.create(kind, value)

    async def update(self, kind: Kind[R], old: Stored[R], new: R) -> Stored[R]:
        """Writes the difference: one request, or two where the status is a subresource and both change. Raises
        Conflict, NotFound, Refused."""
        return await self._writes.update(kind, old, new)

    async def delete(self, kind: Kind[R], old: Stored[R]) -> None:
        """Deletes the object; the server keeps it while it has finalizers. Raises Conflict, NotFound."""
        await self._writes.delete(kind, old)

    @property
    def unreadable(self) -> Mapping[Key, str]:
        """Objects that listings and watches have left out because they can't be decoded, and why. A live view."""
        return MappingProxyType(self._objects.misfits.reasons)

    async def close(self) -> None:
        """Lets go of all connections; watches end with Unavailable."""
        await self._client.close()
