"""MTU of pods and tunnels (calico.md 3.8). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from calipy.model.links import Link
from calipy.resources.ip_pools import IPPool

DEFAULT_MTU = 1500
_OVERHEADS = {"ipip": 20, "vxlan4": 50, "vxlan6": 70}


def host_mtu(links: Iterable[Link], pattern: str) -> int:
    """The smallest MTU of the links that are up and match mtuIfacePattern; 1500 where none does."""
    matcher = re.compile(pattern)
    return min((link.mtu for link in links if link.up and link.mtu and matcher.search(link.name)), default=DEFAULT_MTU)


def pod_mtu(host: int, pools: Iterable[IPPool], tunnels: Mapping[int, int]) -> int:
    """The MTU that pods get: what every encapsulation in use leaves of the host's. `tunnels` are vxlanMTU and
    vxlanMTUV6 by family, 0 = to be detected; where one is given, it counts as it is, as in Calico."""
    found = [host]
    for pool in pools:
        if pool.spec.ipip_mode != "Never":
            found.append(host - _OVERHEADS["ipip"])
        if pool.spec.vxlan_mode != "Never":
            found.append(tunnels.get(pool.family, 0) or host - _OVERHEADS[f"vxlan{pool.family}"])
    return min(found)
