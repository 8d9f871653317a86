"""The tunnels' driver reads in slices."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.felix.drivers import links
from calipy.felix.drivers.links import LinksDriver
from calipy.netlink.socket import ROUTE, NetlinkSocket

PEERS = 300


async def test_a_reading_of_many_peers_pauses_again_and_again(namespaces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_SLICE", 1)
    host = namespaces("n1")
    host.run("ip", "link", "add", "vxlan.calico", "type", "vxlan", "id", "4096", "dstport", "4789")
    host.run("ip", "link", "set", "vxlan.calico", "up")
    host.run("ip", "address", "add", "10.244.0.0/32", "dev", "vxlan.calico")
    numbers = [(f"66:00:00:00:{i >> 8:02x}:{i & 255:02x}", f"{i >> 8}.{i & 255}") for i in range(PEERS)]
    peers = "".join(f"neigh add 10.200.{last} lladdr {mac} dev vxlan.calico nud permanent\n" for mac, last in numbers)
    remotes = "".join(f"fdb add {mac} dev vxlan.calico dst 192.168.{last}\n" for mac, last in numbers)
    host.run("ip", "-batch", "-", text=peers)
    host.run("bridge", "-batch", "-", text=remotes)
    with NetlinkSocket.open(ROUTE, namespace=host.fd) as socket:
        driver = LinksDriver(socket, host.fd)
        try:
            steps = list(driver.read())
        finally:
            driver.close()
    assert steps[-1] is not None
    kinds = [name.kind for name in steps[-1]]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "device": 1, "address": 1, "neighbour": PEERS, "forwarding": PEERS,
    }  # fmt: skip
    assert steps[:-1] == [None] * (len(steps) - 1)
    assert len(steps) > 4 * PEERS, "where each answer is parsed, and where it is filed"
