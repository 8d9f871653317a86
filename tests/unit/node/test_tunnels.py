"""A node's tunnel addresses are drawn where a pool needs them, and given back where none does."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.conversion.nodes import vxlan_mac
from calipy.node.tunnels import settle
from calipy.resources.ip_pools import KIND
from tests.unit.resources.objects import made

P = "projectcalico.org/"
V4 = {"cidr": "10.0.0.0/16", "vxlanMode": "Always"}
V6 = {"cidr": "fd00::/48", "vxlanMode": "CrossSubnet"}
A4 = {f"{P}IPv4VXLANTunnelAddr": "10.0.0.1", f"{P}VXLANTunnelMACAddr": vxlan_mac("n1", 4)}
A6 = {f"{P}IPv6VXLANTunnelAddr": "fd00::1", f"{P}VXLANTunnelMACAddrV6": vxlan_mac("n1", 6)}
NONE4, NONE6 = dict.fromkeys(A4), dict.fromkeys(A6)


class Draws:
    """Addresses as the allocator would give them; what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def tunnel_address(self, handle: str, family: int, kind: str) -> str:
        self.asked.append(f"draw {handle} {kind}")
        return {4: "10.0.0.1", 6: "fd00::1"}[family]

    async def release(self, handle: str) -> object:
        self.asked.append(f"release {handle}")
        return None


DRAW4, DRAW6 = "draw vxlan-tunnel-addr-n1 vxlanTunnelAddress", "draw vxlan-v6-tunnel-addr-n1 vxlanV6TunnelAddress"
BACK4, BACK6 = "release vxlan-tunnel-addr-n1", "release vxlan-v6-tunnel-addr-n1"
CASES: list[tuple[list[dict[str, Any]], dict[str, str | None], list[str]]] = [
    ([], {**NONE4, **NONE6}, [BACK4, BACK6]),
    ([V4, V6], {**A4, **A6}, [DRAW4, DRAW6]),
    ([V4], {**A4, **NONE6}, [DRAW4, BACK6]),
    ([{**V4, "vxlanMode": "Never"}], {**NONE4, **NONE6}, [BACK4, BACK6]),
    ([{**V4, "disabled": True}], {**NONE4, **NONE6}, [BACK4, BACK6]),
    ([{**V4, "allowedUses": ["Workload"]}], {**NONE4, **NONE6}, [BACK4, BACK6]),
    ([{**V4, "nodeSelector": "rack == 'b'"}], {**NONE4, **NONE6}, [BACK4, BACK6]),
    ([{**V4, "nodeSelector": "rack == 'a'"}], {**A4, **NONE6}, [DRAW4, BACK6]),
]


@pytest.mark.parametrize(("pools", "notes", "asked"), CASES, ids=[str(row[0]) for row in CASES])
async def test_tunnel_addresses_follow_the_pools(
    pools: list[dict[str, Any]], notes: dict[str, str | None], asked: list[str]
) -> None:
    draws = Draws()
    assert await settle("n1", draws, [made(KIND, spec) for spec in pools], {"rack": "a"}) == notes
    assert draws.asked == asked
