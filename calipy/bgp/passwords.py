"""Reads the sessions' passwords from Secrets: by name, for which the agent needs no right to list them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from calipy.datastore.stores import NotFound, Store, StoreError
from calipy.resources import secrets
from calipy.resources.secrets import SecretKeySelector


class Passwords:
    """Those of one namespace."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store, self._namespace = store, namespace
        self.known: Mapping[SecretKeySelector, str] = {}
        self.unknown: Mapping[SecretKeySelector, str] = {}
        """Why a password isn't known, with the remedy."""

    async def read(self, references: Iterable[SecretKeySelector]) -> None:
        """These and no others. While the store can't be read, a password that was known stays."""
        known: dict[SecretKeySelector, str] = {}
        unknown: dict[SecretKeySelector, str] = {}
        for reference in set(references):
            try:
                known[reference] = await self._one(reference)
            except ValueError as error:
                unknown[reference] = str(error)
            except StoreError as error:
                if reference in self.known:
                    known[reference] = self.known[reference]
                else:
                    unknown[reference] = f"{self._secret(reference)} can't be read: {error}; it is tried again"
        self.known, self.unknown = known, unknown

    async def _one(self, reference: SecretKeySelector) -> str:
        """Raises ValueError where there is none, StoreError."""
        try:
            stored = await self._store.get(secrets.KIND, reference.name, self._namespace)
        except NotFound:
            raise ValueError(f"{self._secret(reference)} is not there; create it") from None
        text = stored.value.text(reference.key)
        if text is None:
            raise ValueError(f"{self._secret(reference)} has no data.{reference.key}; write the password there")
        return text

    def _secret(self, reference: SecretKeySelector) -> str:
        return f"Secret/{self._namespace}/{reference.name}"
