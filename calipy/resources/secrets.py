"""Secret (core v1), and how Calico's kinds refer to one."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from msgspec import Struct

from calipy.resources.metadata import Kind, Resource, no_problems


class SecretKeySelector(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One key of a Secret in the agent's own namespace (Kubernetes' core/v1 SecretKeySelector)."""

    name: str
    """The Secret's name."""
    key: str
    """The key in its data."""
    optional: bool | None = None
    """Whether all goes on without a password where the Secret or its key isn't there. Default: false."""


class Secret(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Secret"):
    """What nobody else is to know."""

    data: dict[str, str] = {}
    """Base64."""
    string_data: dict[str, str] = {}
    """As it is. An API server moves it into `data`; the embedded store keeps it."""
    type: str = "Opaque"
    api_version: Literal["v1"] = "v1"

    def text(self, key: str) -> str | None:
        """The value under a key; None where there is none. Raises ValueError where it is no base64 of UTF-8."""
        if key in self.string_data:
            return self.string_data[key]
        if key not in self.data:
            return None
        try:
            return base64.b64decode(self.data[key], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            where = f"Secret/{self.metadata.namespace}/{self.metadata.name}: data.{key}"
            raise ValueError(f"{where}: is no base64 of UTF-8 text; write it anew") from None


KIND = Kind(
    name="Secret", group="", version="v1", plural="secrets", type=Secret, problems=no_problems, namespaced=True,
)  # fmt: skip
