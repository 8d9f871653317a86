"""Names of objects in fields of other objects: DNS subdomains (RFC 1123), as Kubernetes' own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from calipy.resources.metadata import Problem

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
PATTERN = rf"{_LABEL}(\.{_LABEL})*"
"""For judges and for an API server alike (RE2's syntax), without anchors."""
MOST_CHARACTERS = 253

_NAME = re.compile(PATTERN)


def dns_name_problems(field: str, text: str) -> Iterator[Problem]:
    """What is wrong with a name in a field."""
    if len(text) > MOST_CHARACTERS:
        yield Problem(field, text, f"has {len(text)} characters", f"{MOST_CHARACTERS} at most")
    elif not _NAME.fullmatch(text):
        remedy = "lower-case letters, digits, dashes, dots; a letter or digit at both ends"
        yield Problem(field, text, "can't be a name", remedy)
