"""The node's address: given, or found by each of calico/node's methods; and what is said of what was considered."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.model.links import Link, LinkAddress
from calipy.node.addresses import Choice, Evidence, NoAddress, choose
from calipy.settings import Autodetection, read


def link(index: int, name: str, up: bool = True) -> Link:
    return Link(index=index, name=name, kind="", up=up, carrier=up, mtu=1500, mac="", alias="")


LINKS = [
    link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "docker0"), link(5, "cali0123"), link(6, "wg-v6.cali"),
    link(7, "eth2", up=False),
]  # fmt: skip
ADDRESSES = [
    LinkAddress(1, "127.0.0.1", 8), LinkAddress(1, "::1", 128), LinkAddress(2, "10.9.0.11", 24),
    LinkAddress(2, "10.9.0.5", 32), LinkAddress(2, "fe80::1", 64), LinkAddress(2, "fd09::11", 64),
    LinkAddress(3, "192.0.2.11", 24), LinkAddress(3, "192.0.2.9", 24), LinkAddress(4, "172.17.0.1", 16),
    LinkAddress(5, "169.254.1.1", 32), LinkAddress(6, "fd77::1", 64), LinkAddress(7, "198.51.100.1", 24),
]  # fmt: skip


def evidence(**more: Any) -> Evidence:
    return Evidence(links={found.index: found for found in LINKS}, addresses=ADDRESSES, **more)


def method(text: str) -> Autodetection:
    return read({"NODENAME": "n1", "IP_AUTODETECTION_METHOD": text}).ip_method


# method | family | what else is known | address | how it was found
DETECTED: list[tuple[str, int, dict[str, Any], str, str]] = [
    # The newest link first, as calico/node; of its addresses the lowest.
    ("first-found", 4, {}, "192.0.2.9/24", "first-found finds it on eth1"),
    ("first-found", 6, {}, "fd09::11/64", "first-found finds it on eth0"),
    # What the node has had stays while it is still one of those found.
    ("first-found", 4, {"current": "10.9.0.11/24"}, "10.9.0.11/24", "first-found still finds it on eth0"),
    ("first-found", 4, {"current": "10.9.0.99/24"}, "192.0.2.9/24", "first-found finds it on eth1"),
    ("first-found", 4, {"current": "172.17.0.1/16"}, "192.0.2.9/24", "first-found finds it on eth1"),
    # On one link, what stands alone in its subnet comes last.
    ("interface=eth0", 4, {}, "10.9.0.11/24", "interface=eth0 finds it on eth0"),
    ("interface=^et,dock", 4, {}, "172.17.0.1/16", "interface=^et,dock finds it on docker0"),
    ("skip-interface=eth1", 4, {}, "10.9.0.11/24", "skip-interface=eth1 finds it on eth0"),
    ("cidr=10.0.0.0/8,172.16.0.0/12", 4, {}, "172.17.0.1/16", "cidr=10.0.0.0/8,172.16.0.0/12 finds it on docker0"),
    ("cidr=fd00::/8", 6, {}, "fd77::1/64", "cidr=fd00::/8 finds it on wg-v6.cali"),
    ("can-reach=192.0.2.254", 4, {"source": "192.0.2.11"}, "192.0.2.11/24", "can-reach=192.0.2.254 finds it on eth1"),
    (
        "kubernetes-internal-ip",
        4,
        {"internal": ("fd09::11", "10.9.0.11")},
        "10.9.0.11/24",
        "kubernetes-internal-ip finds it on eth0",
    ),
]


@pytest.mark.parametrize(("text", "family", "known", "address", "reason"), DETECTED)
def test_a_method(text: str, family: int, known: dict[str, Any], address: str, reason: str) -> None:
    assert choose("autodetect", method(text), family, evidence(**known)) == Choice(address, reason)


# method | family | what else is known | parts of what is said
NONE_FOUND: list[tuple[str, int, dict[str, Any], list[str]]] = [
    (
        "interface=eth9",
        4,
        {},
        [
            "no IPv4 address for this node by interface=eth9 (",
            "198.51.100.1/24 on eth2: the link is down; ",
            "169.254.1.1/32 on cali0123: not a global address; ",
            "10.9.0.11/24 on eth0: the link's name doesn't match; ",
            "; set IP to an address, or IP_AUTODETECTION_METHOD to another method",
        ],
    ),
    (
        "skip-interface=eth.",
        4,
        {},
        [
            "172.17.0.1/16 on docker0: a link of that name is never the node's",
            "10.9.0.11/24 on eth0: the link's name is to be skipped",
        ],
    ),
    (
        "skip-interface=eth0",
        6,
        {},
        ["fd77::1/64 on wg-v6.cali: a link of that name is never the node's", "set IP6 to an address"],
    ),
    ("cidr=10.1.0.0/16", 4, {}, ["10.9.0.11/24 on eth0: lies in none of the ranges"]),
    (
        "can-reach=203.0.113.1",
        4,
        {"unreachable": "Network is unreachable"},
        ["10.9.0.11/24 on eth0: 203.0.113.1 can't be reached: Network is unreachable"],
    ),
    (
        "can-reach=203.0.113.1",
        4,
        {"source": "198.18.0.1"},
        ["10.9.0.11/24 on eth0: 203.0.113.1 is reached from 198.18.0.1"],
    ),
    ("kubernetes-internal-ip", 4, {}, ["10.9.0.11/24 on eth0: the Node has no IPv4 InternalIP"]),
    (
        "kubernetes-internal-ip",
        4,
        {"internal": ("10.9.0.77",)},
        ["10.9.0.11/24 on eth0: the Node's InternalIP is 10.9.0.77"],
    ),
]


@pytest.mark.parametrize(("text", "family", "known", "said"), NONE_FOUND)
def test_where_nothing_is_found_everything_considered_is_told(
    text: str, family: int, known: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(NoAddress) as raised:
        choose("autodetect", method(text), family, evidence(**known))
    for part in said:
        assert part in str(raised.value)


def test_a_host_without_any_address_is_told_so() -> None:
    with pytest.raises(NoAddress, match=r"no IPv6 address for this node by first-found \(no link has one\); set IP6"):
        choose("autodetect", Autodetection(), 6, Evidence(links={}, addresses=()))


# IP | what the node has had | the choice
GIVEN = [
    ("10.9.0.11", "", Choice("10.9.0.11/24", "given, and link eth0 has it")),
    ("10.9.0.11/16", "", Choice("10.9.0.11/16", "given, and link eth0 has it")),
    ("172.17.0.1", "", Choice("172.17.0.1/16", "given, and link docker0 has it")),
    ("203.0.113.7", "", Choice("203.0.113.7/32", "given, though no link of this node has it")),
    ("203.0.113.7/24", "", Choice("203.0.113.7/24", "given, though no link of this node has it")),
    ("none", "", None),
    ("none", "10.9.0.11/24", Choice("10.9.0.11/24", "detection is off, the node's address stays")),
]


@pytest.mark.parametrize(("setting", "current", "choice"), GIVEN)
def test_an_address_that_is_given(setting: str, current: str, choice: Choice | None) -> None:
    assert choose(setting, Autodetection(), 4, evidence(current=current)) == choice
