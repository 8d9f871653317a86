"""CHECK: each difference is found and named."""

import pytest
from msgspec import structs

from calipy.cni.differences import Observed, first_difference
from calipy.cni.wiring import PodRoute, Wiring
from calipy.netlink.rtnetlink import Link

WANTED = Wiring(interface="cali1", pod_interface="eth0", container_id="c1", mtu=1450, addresses=("10.0.0.1", "fd00::1"))
MAC = "02:00:00:00:00:01"
HOST = Link(index=7, name="cali1", alias="c1", mac="ee:ee:ee:ee:ee:ee", mtu=1450, flags=1)
POD = Link(index=2, name="eth0", mac=MAC, mtu=1450, flags=1)
V4, V6 = "ipv4/conf/cali1/", "ipv6/conf/cali1/"
RIGHT = Observed(
    host=HOST,
    pod=POD,
    addresses=("10.0.0.1/32", "fd00::1/128", "fe80::1/64"),
    routes=(
        PodRoute("169.254.1.1/32"),
        PodRoute("0.0.0.0/0", "169.254.1.1"),
        PodRoute("::/0", "fe80::ecee:eeff:feee:eeee"),
    ),
    neighbours={
        "169.254.1.1": ("ee:ee:ee:ee:ee:ee", 0x80),
        "fe80::ecee:eeff:feee:eeee": ("ee:ee:ee:ee:ee:ee", 0x80),
    },
    sysctls={
        V4 + "proxy_arp": "1", V4 + "forwarding": "1", V4 + "route_localnet": "1", "ipv4/neigh/cali1/proxy_delay": "0",
        V6 + "accept_ra": "0", V6 + "disable_ipv6": "0", V6 + "accept_dad": "0", V6 + "proxy_ndp": "1",
        V6 + "forwarding": "1", "ipv4/ip_forward": "0", "ipv6/conf/all/disable_ipv6": "0",
        "ipv6/conf/default/disable_ipv6": "0", "ipv6/conf/lo/disable_ipv6": "0", "ipv6/conf/eth0/accept_dad": "0",
        "ipv6/conf/all/forwarding": "0",
    },
    host_routes={"10.0.0.1": ("10.0.0.1/32", 7), "fd00::1": ("fd00::1/128", 7)},
)  # fmt: skip


def test_none():
    assert first_difference(WANTED, RIGHT, MAC) == ""


def test_a_setting_that_the_kernel_lacks_may_be_missing():
    sysctls = {path: value for path, value in RIGHT.sysctls.items() if path != V6 + "accept_ra"}
    assert first_difference(WANTED, structs.replace(RIGHT, sysctls=sysctls), MAC) == ""


def without(values, key):
    return {name: value for name, value in values.items() if name != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": None}, "link cali1 is gone"),
        ({"pod": None}, "link eth0 is gone"),
        ({"host": structs.replace(HOST, alias="c0")}, "cali1: alias is 'c0', it should be 'c1'"),
        ({"host": structs.replace(HOST, mac=MAC)}, "cali1: MAC address"),
        ({"host": structs.replace(HOST, mtu=1500)}, "cali1: MTU is 1500, it should be 1450"),
        ({"host": structs.replace(HOST, flags=0)}, "cali1: up"),
        ({"pod": structs.replace(POD, mac="02:00:00:00:00:02")}, "eth0: MAC address"),
        ({"pod": structs.replace(POD, mtu=1500)}, "eth0: MTU"),
        ({"pod": structs.replace(POD, flags=0)}, "eth0: up"),
        ({"addresses": ("10.0.0.1/32",)}, "address fd00::1/128 is missing on eth0"),
        ({"routes": RIGHT.routes[1:]}, "route 169.254.1.1/32 dev eth0 is missing"),
        ({"routes": RIGHT.routes[:2]}, "route ::/0 via fe80::ecee:eeff:feee:eeee dev eth0 is missing"),
        ({"neighbours": without(RIGHT.neighbours, "169.254.1.1")}, "neighbour 169.254.1.1 is unknown"),
        ({"neighbours": {**RIGHT.neighbours, "169.254.1.1": ("ee:ee:ee:ee:ee:ee", 2)}}, "not permanent"),
        ({"sysctls": {**RIGHT.sysctls, V4 + "proxy_arp": "0"}}, r"net\.ipv4\.conf\.cali1\.proxy_arp is 0"),
        ({"sysctls": {**RIGHT.sysctls, "ipv4/ip_forward": "1"}}, r"net\.ipv4\.ip_forward is 1, it should be 0"),
        ({"sysctls": without(RIGHT.sysctls, V6 + "proxy_ndp")}, "proxy_ndp is unreadable"),
        ({"host_routes": without(RIGHT.host_routes, "fd00::1")}, "route fd00::1/128 dev cali1 is missing"),
        ({"host_routes": {**RIGHT.host_routes, "10.0.0.1": ("10.0.0.0/26", 7)}}, "route 10.0.0.1/32 dev cali1"),
        ({"host_routes": {**RIGHT.host_routes, "10.0.0.1": ("10.0.0.1/32", 8)}}, "route 10.0.0.1/32 dev cali1"),
    ],
)
def test_the_first_is_named(change, words):
    import re

    assert re.search(words, first_difference(WANTED, structs.replace(RIGHT, **change), MAC))
