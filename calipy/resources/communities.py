"""BGP communities as text: `aa:nn` (RFC 1997), and large ones, `aa:nn:mm` (RFC 8092)."""

from __future__ import annotations

import re


def _up_to(most: int) -> str:
    """A regular expression for the decimal numbers 0 to `most`, which has two digits or more."""
    digits = str(most)
    ways = ["0", f"[1-9][0-9]{{0,{len(digits) - 2}}}"]
    for place, digit in enumerate(digits):
        low, high, rest = int(place == 0), int(digit) - 1, len(digits) - place - 1
        if low <= high:
            ways.append(f"{digits[:place]}[{low}-{high}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return f"({'|'.join([*ways, digits])})"


_SHORT, _LONG = _up_to(0xFFFF), _up_to(0xFFFFFFFF)
PATTERN = f"^({_SHORT}:{_SHORT}|{_LONG}:{_LONG}:{_LONG})$"
"""For judges and for an API server alike (RE2's syntax)."""
MOST_CHARACTERS = 32

_COMMUNITY = re.compile(PATTERN.removeprefix("^").removesuffix("$"))


def is_community(text: str) -> bool:
    """True for a community whose numbers have 16 bits, or a large one, whose numbers have 32."""
    return _COMMUNITY.fullmatch(text) is not None
