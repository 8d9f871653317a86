"""metav1.LabelSelector: how Kubernetes' own kinds select by labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from calipy.resources.labels import label_problems, name_problems, value_problems
from calipy.resources.metadata import Problem


class LabelSelectorRequirement(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Kubernetes meta/v1 LabelSelectorRequirement."""

    key: str
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In, its value is one of values; NotIn, it is none of them, or the label isn't there; Exists and DoesNotExist, the
    label is there or not."""
    values: tuple[str, ...] = ()
    """Of operators In and NotIn: one value or more."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if something with these labels is selected. NotIn also selects what lacks the label."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Kubernetes meta/v1 LabelSelector: all requirements together. An empty one selects everything."""

    match_labels: dict[str, str] = {}
    """Labels and their values; all are there."""
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()
    """Requirements of single labels; all hold."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if something with these labels is selected."""
        return all(labels.get(name) == value for name, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


def label_selector_problems(field: str, selector: LabelSelector) -> Iterator[Problem]:
    """Kubernetes' validation of a LabelSelector in a field of an object."""
    yield from label_problems(f"{field}.matchLabels", selector.match_labels)
    for index, requirement in enumerate(selector.match_expressions):
        yield from _requirement_problems(f"{field}.matchExpressions[{index}]", requirement)


def _requirement_problems(field: str, requirement: LabelSelectorRequirement) -> Iterator[Problem]:
    yield from name_problems(f"{field}.key", requirement.key)
    operator, values = requirement.operator, requirement.values
    if operator in ("In", "NotIn") and not values:
        yield Problem(f"{field}.values", [], f"is empty, and operator is {operator}", "name one value or more")
    if operator in ("Exists", "DoesNotExist") and values:
        yield Problem(f"{field}.values", list(values), f"means nothing with operator {operator}", "leave it out")
    for index, value in enumerate(values):
        yield from value_problems(f"{field}.values[{index}]", value)
