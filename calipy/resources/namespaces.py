"""Namespace (core v1): its labels feed selectors, its annotations are defaults of its pods'."""

from __future__ import annotations

from typing import Literal

from calipy.resources.metadata import Kind, Resource, no_problems


class Namespace(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Namespace"):
    """A namespace of the cluster."""

    api_version: Literal["v1"] = "v1"


KIND = Kind(
    name="Namespace", group="", version="v1", plural="namespaces", type=Namespace, problems=no_problems,
    short_names=("ns",), names="label",
)  # fmt: skip
