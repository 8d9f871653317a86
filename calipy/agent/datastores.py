"""Which store an agent works on, and what differs between them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from calipy.agent.clustered import Clustered
from calipy.agent.embedded import Embedded
from calipy.datastore.stores import Store
from calipy.settings import KUBERNETES, Settings


class Datastore(Protocol):
    """A store that is yet to be opened."""

    embedded: bool
    """True where nobody but agents and commands writes: no kubelet, no scheduler."""

    async def open(self) -> Store:
        """Raises StoreError."""
        ...

    async def keep(self) -> None:
        """Looks after it, as long as the agent runs."""
        ...


def datastore(settings: Settings, thread: Executor, observe: Callable[[str, str, str], object]) -> Datastore:
    """The one that the settings name. `thread` does what waits for the disk; `observe` is told of each request to an
    API server: verb, resource, HTTP status."""
    scheme, _, path = settings.datastore.partition(":")
    if scheme == KUBERNETES:
        return Clustered(path, settings.node, observe)
    return Embedded(Path(path), thread)
