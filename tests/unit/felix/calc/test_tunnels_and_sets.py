"""Whether a node has a tunnel and what it looks like; the sets that every node has."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from calipy.felix.calc import local, sets, tunnels
from calipy.felix.calc.change import SetKey
from calipy.felix.calc.settings import FelixSettings
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import Link, LinkAddress
from calipy.model.nodes import NodeAddress, TunnelEnd
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS
from calipy.resources import pods
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import ObjectMeta
from calipy.resources.pods import Pod, PodSpec

N1 = NodeAddress(name="n1", addresses={4: "10.9.0.1/24"}, vxlan={4: TunnelEnd("10.244.0.0", "66:01")})
N2 = NodeAddress(name="n2", addresses={4: "10.9.0.2/24"}, vxlan={4: TunnelEnd("10.244.1.0", "66:02")})
N3 = NodeAddress(name="n3", addresses={4: "10.9.1.3/24", 6: "fd00:9::3/64"}, vxlan={})
LINKS = {1: Link(index=1, name="eth0", up=True, mtu=1400)}
ADDRESSES = [LinkAddress(1, "10.9.0.1", 24)]


def pool(cidr: str = "10.244.0.0/16", **spec: Any) -> IPPool:
    return IPPool(metadata=ObjectMeta(name=cidr), spec=IPPoolSpec(cidr=cidr, **spec))


# pools, settings, family -> wanted
WANTED: dict[str, tuple[list[IPPool], FelixSettings, int, bool]] = {
    "no pool": ([], FelixSettings(), 4, False),
    "no VXLAN": ([pool()], FelixSettings(), 4, False),
    "VXLAN": ([pool(), pool("10.245.0.0/16", vxlan_mode="CrossSubnet")], FelixSettings(), 4, True),
    "of the other family": ([pool("fd00::/64", vxlan_mode="Always")], FelixSettings(), 4, False),
    "IPv6": ([pool("fd00::/64", vxlan_mode="Always")], FelixSettings(), 6, True),
    "IPv6 is off": ([pool("fd00::/64", vxlan_mode="Always")], FelixSettings(ipv6_support=False), 6, False),
    "vxlanEnabled": ([], FelixSettings(vxlan_enabled=True), 4, True),
    "vxlanEnabled false": ([pool(vxlan_mode="Always")], FelixSettings(vxlan_enabled=False), 4, False),
}


@pytest.mark.parametrize("name", WANTED)
def test_whether_a_tunnel_is_wanted(name: str) -> None:
    found, settings, family, wanted = WANTED[name]
    assert tunnels.wanted(found, settings, family) is wanted


def test_a_tunnel_and_its_peers() -> None:
    found = tunnels.tunnel("n1", {n.name: n for n in (N1, N2, N3)}, LINKS, ADDRESSES, FelixSettings(), 4)
    assert found is not None
    assert (found.name, found.local, found.parent, found.mac, found.address) == (
        "vxlan.calico", "10.9.0.1", "eth0", "66:01", "10.244.0.0",
    )  # fmt: skip
    assert found.mtu == 1350, "the uplink's 1400 less 50"
    assert [(peer.node, peer.address, peer.mac, peer.remote) for peer in found.peers] == [
        ("n2", "10.244.1.0", "66:02", "10.9.0.2")
    ]
    assert not found.waits_for


def test_what_a_tunnel_waits_for() -> None:
    both = {"n1": N1, "n2": N2}
    waiting = tunnels.tunnel("n1", both, LINKS, [], FelixSettings(), 4)
    assert waiting is not None
    assert waiting.waits_for == "no link has the node's address 10.9.0.1"
    assert tunnels.tunnel("n1", {"n2": N2}, LINKS, ADDRESSES, FelixSettings(), 4) is None
    assert tunnels.tunnel("n3", {"n3": N3}, LINKS, ADDRESSES, FelixSettings(), 4) is None, "no tunnel address yet"
    assert tunnels.tunnel("n1", both, LINKS, ADDRESSES, FelixSettings(), 6) is None


def test_settings_of_a_tunnel() -> None:
    settings = FelixSettings(vxlan_mtu=1300, vxlan_port=8472, vxlan_vni=7, checksum_offload_broken=True)
    found = tunnels.tunnel("n1", {"n1": N1}, LINKS, ADDRESSES, settings, 4)
    assert found is not None
    assert (found.mtu, found.port, found.vni, found.offload) == (1300, 8472, 7, False)
    two = replace(N1, addresses={6: "fd00:9::1/64"}, vxlan={6: TunnelEnd("fd00:10::", "66:06")})
    six = tunnels.tunnel("n1", {"n1": two}, LINKS, [LinkAddress(1, "fd00:9::1", 64)], FelixSettings(), 6)
    assert six is not None
    assert (six.name, six.mtu) == ("vxlan-v6.calico", 1330)


def members(found: sets.Members, id_: Any, family: int = 4) -> tuple[str, set[str]]:
    kind, values = found[SetKey(id_, family)]
    return kind, set(values)


def test_pool_sets() -> None:
    found = sets.pool_sets(
        [
            pool("10.244.0.0/16", nat_outgoing=True),
            pool("10.245.0.0/16"),
            pool("10.246.0.0/16", nat_outgoing=True, disabled=True),
            pool("10.247.0.0/16", allowed_uses=("LoadBalancer",), nat_outgoing=True),
            pool("fd00:10::/64", nat_outgoing=True),
        ],
        FelixSettings(),
    )
    assert members(found, NETWORK_IP_POOLS) == ("prefixes", {"10.244.0.0/16", "10.245.0.0/16", "10.246.0.0/16"})
    assert members(found, MASQUERADED_IP_POOLS) == ("prefixes", {"10.244.0.0/16", "10.246.0.0/16"})
    assert members(found, NETWORK_IP_POOLS, 6) == ("prefixes", {"fd00:10::/64"})
    assert not any(key.family == 6 for key in sets.pool_sets([], FelixSettings(ipv6_support=False)))


@pytest.mark.parametrize(
    ("external", "kind", "hosts"),
    [
        ((), "addresses", {"10.9.0.1", "10.9.0.2", "10.9.1.3"}),
        (("192.0.2.1",), "addresses", {"10.9.0.1", "10.9.0.2", "10.9.1.3", "192.0.2.1"}),
        (("192.0.2.0/24", "fd00::1"), "prefixes", {"10.9.0.1", "10.9.0.2", "10.9.1.3", "192.0.2.0/24"}),
    ],
)
def test_host_sets(external: tuple[str, ...], kind: str, hosts: set[str]) -> None:
    found = sets.host_sets("n1", [N1, N2, N3], FelixSettings(external_nodes=external))
    assert members(found, ALL_HOSTS) == (kind, hosts)
    assert members(found, VXLAN_HOSTS) == ("addresses", {"10.9.0.2"}), "others that have a tunnel"
    assert "fd00:9::3" in members(found, ALL_HOSTS, 6)[1]


WEB = WorkloadEndpoint(
    id=EndpointId("k8s", "default/web", "eth0"), container_id="c1", interface="cali1", addresses=("10.244.0.5",),
    namespace="default", pod="web",
)  # fmt: skip


def pod(**changes: Any) -> Pod:
    notes = changes.pop("notes", {pods.CONTAINER_ID: "c1", pods.POD_IPS: "10.244.0.5/32,fd00::5/128"})
    labels = changes.pop("labels", {})
    metadata = ObjectMeta(name="web", namespace="default", annotations=notes, labels=labels)
    return Pod(metadata=metadata, spec=PodSpec(node_name=changes.pop("node", "n1"), **changes))


def test_a_pod_gives_labels_and_service_account_and_takes_nothing_away() -> None:
    joined = local.join(WEB, pod(labels={"app": "web"}, service_account_name="robot", notes={}))
    assert (joined.labels, joined.service_account) == ({"app": "web"}, "robot")
    assert (joined.container_id, joined.interface, joined.addresses) == ("c1", "cali1", ("10.244.0.5",))
    assert local.join(WEB, None) == WEB
