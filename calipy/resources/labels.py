"""Labels and annotations, and what the API lets them be.

Source: Kubernetes' apimachinery: IsQualifiedName and IsValidLabelValue (util/validation), ValidateLabels
(meta/v1/validation), ValidateAnnotations (api/validation).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from calipy.resources.metadata import ObjectMeta, Problem

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PREFIX, _PREFIX_MOST = re.compile(rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"), 253
_NAME, _NAME_MOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"), 63
_ANNOTATIONS_MOST = 256 * 1024
_WORDS = "letters, digits, dashes, underscores, dots; a letter or digit at both ends"


def label_problems(metadata: ObjectMeta) -> Iterator[Problem]:
    """What is wrong with an object's labels and annotations."""
    for key, value in metadata.labels.items():
        yield from _key_problems("metadata.labels", key, key)
        yield from _value_problems(f"metadata.labels[{key}]", value)
    for key in metadata.annotations:
        yield from _key_problems("metadata.annotations", key, key.lower())
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.annotations.items())
    if size > _ANNOTATIONS_MOST:
        reason = f"take {size} bytes together"
        yield Problem("metadata.annotations", "", reason, f"{_ANNOTATIONS_MOST} at most, keys and values")


def _key_problems(field: str, key: str, judged: str) -> Iterator[Problem]:
    """A key is a name, or a DNS subdomain, a slash and a name. `judged`: the key in the case in which it is judged."""
    prefix, slash, name = judged.rpartition("/")
    if slash and not prefix:
        yield Problem(field, key, "is a key with nothing before its slash", "leave the slash out")
    elif len(prefix) > _PREFIX_MOST:
        yield Problem(field, key, f"is a key with {len(prefix)} characters before its slash", f"{_PREFIX_MOST} at most")
    elif slash and not _PREFIX.fullmatch(prefix):
        yield Problem(field, key, "is a key whose part before the slash is no DNS name", "write example.com/name")
    if len(name) > _NAME_MOST:
        yield Problem(field, key, f"is a key whose name has {len(name)} characters", f"{_NAME_MOST} at most")
    elif not _NAME.fullmatch(name):
        yield Problem(field, key, "can't be a key", _WORDS)


def _value_problems(field: str, value: str) -> Iterator[Problem]:
    if len(value) > _NAME_MOST:
        yield Problem(field, value, f"is a label's value of {len(value)} characters", f"{_NAME_MOST} at most")
    elif value and not _NAME.fullmatch(value):
        yield Problem(field, value, "can't be a label's value", f"{_WORDS}; or nothing")
