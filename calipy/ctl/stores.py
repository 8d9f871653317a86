"""The store that a command works on. It is opened, never made: reading leaves no empty cluster behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from calipy.console.failures import Failure
from calipy.datastore.stores import Store
from calipy.settings import KUBERNETES, client_datastore

_SQLITE = "sqlite"


def location(given: str, environment: Mapping[str, str]) -> str:
    """`--datastore`, else what `settings.client_datastore` finds. Raises Failure, SettingError."""
    if not given:
        return client_datastore(environment)
    scheme, colon, path = given.partition(":")
    if given != KUBERNETES and not (colon and path and scheme in (_SQLITE, KUBERNETES)):
        remedy = "write sqlite:<path>, kubernetes or kubernetes:<kubeconfig>"
        raise Failure("--datastore", "is no datastore", remedy, value=given)
    return given


def chosen(datastore: str, kubeconfig: str) -> str:
    """What `--datastore` and `--kubeconfig` say together. Raises Failure where both are given."""
    if datastore and kubeconfig:
        raise Failure("--kubeconfig", "can't be given with --datastore", "write one of them", value=kubeconfig)
    return f"{KUBERNETES}:{kubeconfig}" if kubeconfig else datastore


@asynccontextmanager
async def opened(where: str) -> AsyncIterator[Store]:
    """The store at `where` (as `location` gives it). Raises Failure if there is none, StoreError if it can't be
    reached."""
    scheme, _, path = where.partition(":")
    store = await (_cluster(path) if scheme == KUBERNETES else _file(_existing(where, Path(path))))
    try:
        yield store
    finally:
        await store.close()


async def _cluster(kubeconfig: str) -> Store:
    from calipy.datastore.kubernetes.credentials import find
    from calipy.datastore.kubernetes.store import KubernetesStore

    return await KubernetesStore.open(find(kubeconfig, os.environ))


async def _file(path: Path) -> Store:
    from calipy.datastore.sqlite import SQLiteStore

    return await SQLiteStore.open(path)


def _existing(where: str, path: Path) -> Path:
    if not os.path.exists(path):
        remedy = "start a lab with `calipy lab up`, or name a store with --datastore, --kubeconfig or CALIPY_DATASTORE"
        raise Failure(f"datastore {where}", "is not there", remedy)
    return path
