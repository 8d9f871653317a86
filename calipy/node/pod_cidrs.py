"""USE_POD_CIDR: a node that draws its addresses from its Node's podCIDRs alone, as calico/node with host-local: for
those who route podCIDRs by themselves. Blocks stay what they are; only pools look smaller to the node. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from msgspec import UNSET, structs

from calipy.resources.cidrs import family_of
from calipy.resources.conditions import Condition
from calipy.resources.ip_pools import IPPool, IPPoolStatus


def narrowed(pools: Iterable[IPPool], pod_cidrs: Iterable[str]) -> Iterator[IPPool]:
    """Each pool cut down to what it has of the podCIDRs; one that has nothing of them can't be drawn from, and says
    so. A block must fit into the podCIDR."""
    cidrs = tuple(pod_cidrs)
    for pool in pools:
        mine = [cidr for cidr in cidrs if family_of(cidr) == pool.family]
        found = next(filter(None, (_common(pool, cidr) for cidr in mine)), "")
        if found:
            yield structs.replace(pool, spec=structs.replace(pool.spec, cidr=found))
        else:
            yield _closed(pool, mine)


def _common(pool: IPPool, pod_cidr: str) -> str:
    """What both have, if it has room for a block; empty else. Of two ranges one has the other, or they have nothing."""
    try:
        outer, inner = ipaddress.ip_network(pool.spec.cidr, strict=False), ipaddress.ip_network(pod_cidr, strict=False)
    except ValueError:
        return ""
    if not outer.overlaps(inner):
        return ""
    smaller = max(outer, inner, key=lambda network: network.prefixlen)
    return str(smaller) if smaller.prefixlen <= pool.block_size else ""


def _closed(pool: IPPool, pod_cidrs: list[str]) -> IPPool:
    shown = ", ".join(pod_cidrs) or f"its Node has no podCIDR of IPv{pool.family} yet"
    message = f"USE_POD_CIDR is true on this node, and no block of /{pool.block_size} is in both: {shown}"
    closed = Condition(type="Allocatable", status="False", reason="NotOfPodCIDR", message=message)
    others = () if pool.status is UNSET else pool.status.conditions
    conditions = (*(found for found in others if found.type != "Allocatable"), closed)
    return structs.replace(pool, status=IPPoolStatus(conditions=conditions))
