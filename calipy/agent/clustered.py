"""The Kubernetes API as the agent's store. Its client is imported when it is opened: the closed skeleton is first."""

from __future__ import annotations

import os
from collections.abc import Callable

from calipy.datastore.stores import Store


class Clustered:
    """One API server."""

    embedded = False

    def __init__(self, kubeconfig: str, node: str, observe: Callable[[str, str, str], object]) -> None:
        """`kubeconfig`: a path, or empty for what the environment says; of pods on other nodes than `node` only a
        part is kept; `observe` is told of each request: verb, resource, HTTP status."""
        self._kubeconfig = kubeconfig
        self._node = node
        self._observe = observe

    async def open(self) -> Store:
        """Raises StoreError."""
        from calipy.datastore.kubernetes.credentials import find
        from calipy.datastore.kubernetes.store import KubernetesStore

        credentials = find(self._kubeconfig, os.environ)
        return await KubernetesStore.open(credentials, own_node=self._node, observe=self._observe)

    async def keep(self) -> None:
        """The server looks after itself."""
