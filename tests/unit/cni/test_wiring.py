"""A pod's wiring: names, and every message as another decoder reads it."""

import struct

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from calipy.cni import wiring as plans
from calipy.cni.protocol import PodReference
from calipy.cni.wiring import PodRoute, Sysctl, Wiring
from calipy.netlink import rtnetlink as rt

DECODERS = {16: ifinfmsg, 19: ifinfmsg, 20: ifaddrmsg, 24: rtmsg, 26: rtmsg, 28: ndmsg}
DUAL = Wiring(
    interface="cali1", pod_interface="eth0", container_id="c1", mtu=1450, addresses=("10.0.0.1", "fd00::1"),
    queues=2, pod_mac="02:00:00:00:00:01",
)  # fmt: skip
FOUR = Wiring(interface="cali1", pod_interface="eth0", container_id="c1", mtu=1450, addresses=("10.0.0.1",))
SIX = Wiring(
    interface="cali1", pod_interface="eth0", container_id="c1", mtu=1450, addresses=("fd00::1",), forwarding=True
)


def decoded(message):
    header = struct.pack("=IHHII", 16 + len(message.body), message.kind, message.flags, 1, 0)
    found = DECODERS[message.kind](header + message.body)
    found.decode()
    return found


def test_the_host_interface_of_a_pod():
    # printf default.web-0 | sha1sum
    assert plans.host_interface("cali", PodReference("default", "web-0"), "x") == "cali0d7763386da"
    assert plans.host_interface("azv", PodReference("default", "web-0", "any"), "y") == "azv0d7763386da"


def test_the_host_interface_of_another_container():
    assert plans.host_interface("cali", None, "0123456789abcdef") == "cali0123456789a"
    assert plans.host_interface("cali", None, "x1") == "calix1"


def test_the_pair_is_made_where_it_belongs():
    link = decoded(plans.create(DUAL, 7))
    assert link["flags"] == 0
    assert link.get_attr("IFLA_IFNAME") == "cali1"
    assert link.get_attr("IFLA_ADDRESS") == "ee:ee:ee:ee:ee:ee"
    assert (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_NUM_TX_QUEUES")) == (1450, 2)
    peer = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    assert (peer.get_attr("IFLA_NET_NS_FD"), peer.get_attr("IFLA_MTU")) == (7, 1450)


def test_host_settings():
    (message,) = plans.host_settings(FOUR, 9)
    link = decoded(message)
    assert (link["index"], link.get_attr("IFLA_IFALIAS")) == (9, "c1")
    # AF_INET 2 { IFLA_INET_CONF 1 { forwarding 1, proxy_arp 3, route_localnet 26 } }
    for setting in (1, 3, 26):
        assert struct.pack("=HHI", 8, setting, 1) in message.body
    # AF_INET6 10 { IFLA_INET6_ADDR_GEN_MODE 8 = 1 (none) }
    assert struct.pack("=HHB", 5, 8, 1) in message.body


def test_host_sysctls():
    assert plans.host_sysctls(FOUR) == (
        Sysctl("ipv6/conf/cali1/accept_ra", "0", True),
        Sysctl("ipv4/neigh/cali1/proxy_delay", "0"),
    )
    assert {setting.path.rpartition("/")[2]: setting.value for setting in plans.host_sysctls(SIX)} == {
        "accept_ra": "0",
        "disable_ipv6": "0",
        "accept_dad": "0",
        "proxy_ndp": "1",
        "forwarding": "1",
    }


def test_the_gateway_is_set_where_there_is_ipv6():
    assert [message.kind for message in plans.host_rise(FOUR, 9)] == [rt.SET_LINK]
    up, gateway, prefix = map(decoded, plans.host_rise(SIX, 9))
    assert up["flags"] == 1
    assert gateway.get_attr("IFA_ADDRESS") == "fe80::ecee:eeff:feee:eeee"
    assert (gateway["prefixlen"], gateway["index"], gateway["scope"]) == (128, 9, 253)
    assert (prefix.get_attr("RTA_DST"), prefix["dst_len"], prefix.get_attr("RTA_OIF")) == ("fe80::", 64, 9)


def test_pod_sysctls():
    assert plans.pod_sysctls(FOUR) == (Sysctl("ipv4/ip_forward", "0"),)
    assert {setting.path: setting.value for setting in plans.pod_sysctls(SIX)} == {
        "ipv6/conf/all/disable_ipv6": "0",
        "ipv6/conf/default/disable_ipv6": "0",
        "ipv6/conf/lo/disable_ipv6": "0",
        "ipv6/conf/eth0/accept_dad": "0",
        "ipv6/conf/all/forwarding": "1",
    }


def test_pod_routes():
    assert plans.pod_routes(DUAL) == (
        PodRoute("169.254.1.1/32"),
        PodRoute("0.0.0.0/0", "169.254.1.1"),
        PodRoute("::/0", "fe80::ecee:eeff:feee:eeee"),
    )


def test_pod_settings():
    found = [decoded(message) for message in plans.pod_settings(DUAL, 5)]
    links = [entry for entry in found if isinstance(entry, ifinfmsg)]
    assert [(link["index"], link["flags"]) for link in links] == [(1, 1), (5, 1)]
    neighbours = [entry for entry in found if isinstance(entry, ndmsg)]
    assert [(entry.get_attr("NDA_DST"), entry.get_attr("NDA_LLADDR"), entry["state"]) for entry in neighbours] == [
        ("169.254.1.1", "ee:ee:ee:ee:ee:ee", 0x80),
        ("fe80::ecee:eeff:feee:eeee", "ee:ee:ee:ee:ee:ee", 0x80),
    ]
    routes = [entry for entry in found if isinstance(entry, rtmsg)]
    assert [(entry.get_attr("RTA_DST"), entry["dst_len"], entry.get_attr("RTA_GATEWAY")) for entry in routes] == [
        ("169.254.1.1", 32, None),
        ("0.0.0.0", 0, "169.254.1.1"),
        ("::", 0, "fe80::ecee:eeff:feee:eeee"),
    ]
    assert [entry["scope"] for entry in routes] == [253, 0, 0]
    addresses = [entry for entry in found if isinstance(entry, ifaddrmsg)]
    assert [(entry.get_attr("IFA_ADDRESS"), entry["prefixlen"]) for entry in addresses] == [
        ("10.0.0.1", 32),
        ("fd00::1", 128),
    ]
    # Calico's order: addresses come after routes.
    assert found.index(addresses[0]) > found.index(routes[-1])


@pytest.mark.parametrize(("address", "length"), [("10.0.0.1", 32), ("fd00::1", 128)])
def test_the_question_for_a_route(address, length):
    asked = decoded(plans.route_question(address))
    assert (asked.get_attr("RTA_DST"), asked["dst_len"], asked["flags"]) == (address, length, 0x2000)
