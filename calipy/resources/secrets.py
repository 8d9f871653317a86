"""References to Kubernetes Secrets, as Calico's kinds hold them."""

from __future__ import annotations

from msgspec import Struct


class SecretKeySelector(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """core/v1 SecretKeySelector: the key `key` of the Secret `name` in the agent's namespace."""

    name: str
    key: str
    optional: bool | None = None
