"""Passwords out of Secrets, and what is said where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from calipy.bgp.passwords import Passwords
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Stored, Unavailable
from calipy.resources import secrets
from calipy.resources.metadata import Kind, ObjectMeta
from calipy.resources.secrets import Secret, SecretKeySelector

TOR, MESH = SecretKeySelector(name="bgp", key="tor"), SecretKeySelector(name="bgp", key="mesh")


class Store:
    """A store that may be away."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store, self.away = store, False

    async def get(self, kind: Kind[Any], name: str, namespace: str = "") -> Stored[Any]:
        if self.away:
            raise Unavailable("the API server doesn't answer")
        return await self.store.get(kind, name, namespace)

    async def put(self, **data: str) -> None:
        metadata = ObjectMeta(name="bgp", namespace="kube-system")
        await self.store.create(secrets.KIND, Secret(metadata=metadata, data=data))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SQLiteStore.open(tmp_path / "store")
    yield Store(opened)
    await opened.close()


async def read(store: Store, *references: SecretKeySelector) -> Passwords:
    passwords = Passwords(store, "kube-system")  # type: ignore[arg-type]
    await passwords.read(references)
    return passwords


async def test_each_key_is_a_password(store: Store) -> None:
    await store.put(tor="Zmlyc3Q=", mesh="c2Vjb25k")
    passwords = await read(store, TOR, MESH, TOR)
    assert (passwords.known, passwords.unknown) == ({TOR: "first", MESH: "second"}, {})
    await passwords.read([MESH])
    assert passwords.known == {MESH: "second"}


async def test_why_one_is_not_known_is_said_with_the_remedy(store: Store) -> None:
    assert (await read(store, TOR)).unknown == {TOR: "Secret/kube-system/bgp is not there; create it"}
    await store.put(tor="?")
    passwords = await read(store, TOR, MESH)
    assert passwords.known == {}
    assert passwords.unknown == {
        TOR: "Secret/kube-system/bgp: data.tor: is no base64 of UTF-8 text; write it anew",
        MESH: "Secret/kube-system/bgp has no data.mesh; write the password there",
    }


async def test_a_password_stays_while_the_store_is_away(store: Store) -> None:
    await store.put(tor="Zmlyc3Q=", mesh="c2Vjb25k")
    passwords = await read(store, TOR)
    store.away = True
    await passwords.read([TOR, MESH])
    assert passwords.known == {TOR: "first"}
    assert passwords.unknown == {
        MESH: "Secret/kube-system/bgp can't be read: the API server doesn't answer; it is tried again"
    }
