"""ConfigMap (core v1): read only, for what an installer wrote down about the cluster."""

from __future__ import annotations

from typing import Literal

from calipy.resources.metadata import Kind, Resource, no_problems


class ConfigMap(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="ConfigMap"):
    """Texts by name."""

    data: dict[str, str] = {}
    api_version: Literal["v1"] = "v1"


KIND = Kind(
    name="ConfigMap", group="", version="v1", plural="configmaps", type=ConfigMap, problems=no_problems,
    short_names=("cm",), namespaced=True,
)  # fmt: skip
