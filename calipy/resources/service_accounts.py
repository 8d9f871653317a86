"""ServiceAccount (core v1): its labels feed selectors."""

from __future__ import annotations

from typing import Literal

from msgspec import Raw

from calipy.resources.metadata import Kind, Resource, no_problems


class ServiceAccount(
    Resource, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel", tag_field="kind",
    tag="ServiceAccount",
):  # fmt: skip
    """Who a pod is to the API server."""

    secrets: tuple[Raw, ...] = ()
    image_pull_secrets: tuple[Raw, ...] = ()
    automount_service_account_token: bool | None = None
    api_version: Literal["v1"] = "v1"


KIND = Kind(
    name="ServiceAccount", group="", version="v1", plural="serviceaccounts", type=ServiceAccount,
    problems=no_problems, short_names=("sa",), namespaced=True,
)  # fmt: skip
