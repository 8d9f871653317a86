"""The MTU that pods get: what every encapsulation in use leaves of the host's."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.model.links import Link
from calipy.node.mtu import host_mtu, pod_mtu
from calipy.resources.ip_pools import KIND
from tests.unit.resources.objects import made

PATTERN = r"^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)"


def link(name: str, mtu: int, up: bool = True) -> Link:
    return Link(index=1, name=name, kind="", up=up, carrier=up, mtu=mtu, mac="", alias="")


@pytest.mark.parametrize(
    ("links", "mtu"),
    [
        ([], 1500),
        ([link("lo", 65536), link("cali1", 1400)], 1500),
        ([link("eth0", 9000), link("ens3", 8950)], 8950),
        ([link("eth0", 1400, up=False), link("eth1", 9000)], 9000),
    ],
)
def test_the_hosts(links: list[Link], mtu: int) -> None:
    assert host_mtu(links, PATTERN) == mtu


V4, V6 = {"cidr": "10.0.0.0/16"}, {"cidr": "fd00::/48"}


@pytest.mark.parametrize(
    ("specs", "tunnels", "mtu"),
    [
        ([], {}, 1500),
        ([V4, V6], {4: 1400}, 1500),
        ([{**V4, "ipipMode": "CrossSubnet"}], {}, 1480),
        ([{**V4, "vxlanMode": "Always"}], {4: 0}, 1450),
        ([{**V4, "vxlanMode": "Always"}], {4: 1400}, 1400),
        ([{**V4, "vxlanMode": "Always"}, {**V6, "vxlanMode": "CrossSubnet"}], {}, 1430),
    ],
)
def test_the_pods(specs: list[dict[str, Any]], tunnels: dict[int, int], mtu: int) -> None:
    assert pod_mtu(1500, [made(KIND, spec) for spec in specs], tunnels) == mtu
