"""What labels and annotations may be (Kubernetes' "Labels and Selectors", "Annotations")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from calipy.resources.metadata import ObjectMeta, Problem

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MOST_NAME, _MOST_PREFIX, _MOST_ANNOTATIONS = 63, 253, 256 * 1024
_WORD = "letters, digits, -, _ and ., 63 at most, a letter or digit at both ends"
_NAME_REMEDY = f"{_WORD}; before it, at will, a DNS name and /"
_VALUE_REMEDY = f"{_WORD}, or nothing at all"


def is_name(text: str) -> bool:
    """True if it can be the name of a label: `role`, `example.com/role`."""
    prefix, slash, name = text.rpartition("/")
    if slash and not (len(prefix) <= _MOST_PREFIX and _PREFIX.fullmatch(prefix)):
        return False
    return len(name) <= _MOST_NAME and _NAME.fullmatch(name) is not None


def is_value(text: str) -> bool:
    """True if it can be the value of a label."""
    return not text or (len(text) <= _MOST_NAME and _NAME.fullmatch(text) is not None)


def name_problems(field: str, text: str) -> Iterator[Problem]:
    """What is wrong with the name of a label."""
    if not is_name(text):
        yield Problem(field, text, "can't be the name of a label", _NAME_REMEDY)


def value_problems(field: str, text: str) -> Iterator[Problem]:
    """What is wrong with the value of a label."""
    if not is_value(text):
        yield Problem(field, text, "can't be the value of a label", _VALUE_REMEDY)


def label_problems(field: str, labels: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with labels."""
    for name, value in labels.items():
        yield from name_problems(field, name)
        yield from value_problems(f"{field}[{name}]", value)


def annotation_problems(field: str, annotations: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with annotations: their names are labels', their values what they like, up to a total."""
    for name in annotations:
        # Capital letters in the prefix are let through, as Kubernetes does.
        if not is_name(name.lower()):
            yield Problem(field, name, "can't be the name of an annotation", _NAME_REMEDY)
    size = sum(len(name.encode()) + len(value.encode()) for name, value in annotations.items())
    if size > _MOST_ANNOTATIONS:
        yield Problem(field, f"{size} bytes", "are too much", f"{_MOST_ANNOTATIONS} at most for all annotations")


def metadata_problems(metadata: ObjectMeta) -> Iterator[Problem]:
    """What is wrong with an object's labels and annotations."""
    yield from label_problems("metadata.labels", metadata.labels)
    yield from annotation_problems("metadata.annotations", metadata.annotations)
