"""Lists of networks and of ports, as rules have them -> NetSet and PortSet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from calipy.model.sets import NetSet, PortSet, list_id
from calipy.resources.cidrs import network_or_address


def net_set(nets: Sequence[str]) -> NetSet | None:
    """The networks of a list, each once; None for an empty one, which asks for nothing."""
    if not nets:
        return None
    found = sorted({str(network_or_address(net)) for net in nets})
    return NetSet(list_id("nets", found), tuple(found))


def port_set(ranges: Iterable[tuple[int, int]]) -> PortSet | None:
    """The ports of a list of ranges, as few ranges as can be; None for an empty one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    if not merged:
        return None
    return PortSet(list_id("ports", [range_text(*each) for each in merged]), tuple(merged))


def range_text(first: int, last: int) -> str:
    """`80`, `8000-8080`: as a member of a set of kind `ports`."""
    return str(first) if first == last else f"{first}-{last}"
