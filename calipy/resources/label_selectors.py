"""metav1.LabelSelector: how Kubernetes' own kinds select by labels."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class LabelSelectorRequirement(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Kubernetes meta/v1 LabelSelectorRequirement."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Kubernetes meta/v1 LabelSelector: all requirements together. An empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()
