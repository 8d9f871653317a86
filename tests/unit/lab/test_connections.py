"""Whom a probe means, in which families, and how ICMP's errors read."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from calipy.console.failures import Failure
from calipy.lab import connections, icmp_errors, pods
from calipy.lab.cluster import Lab
from calipy.lab.connections import Target, attempts
from calipy.lab.places import Place
from calipy.lab.pods import Sandbox
from calipy.lab.topology import Plan

WEB = {4: "10.244.0.1", 6: "fd00::1"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab that has no power, with a pod."""
    lab = Lab(tmp_path, Plan())
    (tmp_path / "n1").mkdir()
    web = Sandbox(namespace="shop", name="web", node="n1", container_id="c", addresses=tuple(WEB.values()))
    pods._remember(lab, web)
    return lab


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("shop/web:80", Target(name="shop/web", port=80, addresses=WEB)),
        ("10.0.0.1:65535", Target(name="10.0.0.1", port=65535, addresses={4: "10.0.0.1"})),
        ("[FD00::0:1]:1", Target(name="FD00::0:1", port=1, addresses={6: "fd00::1"})),
        ("n3:22", Target(name="n3", port=22, addresses={4: "10.9.2.13", 6: "fd00:9:0:2::13"})),
        ("outside:22", Target(name="outside", port=22, addresses={4: "10.9.9.99", 6: "fd00:9:0:9::99"})),
    ],
)
def test_targets(text: str, target: Target, lab: Lab) -> None:
    assert connections.parse_target(lab, text) == target


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("web", r"server 'web': is no place and port; write web:80, shop/web:80 or \[fd00::1\]:80"),
        ("web:", "is no place and port"),
        ("web:0", "is no place and port"),
        ("web:65536", "is no place and port"),
        ("fd00::1:80", "is no place and port"),
        ("[fd00::1]", "is no place and port"),
        ("[]:80", r"has no IPv6 address in its brackets; write \[fd00::1\]:80"),
        ("[10.0.0.1]:80", "has no IPv6 address in its brackets"),
        ("[fe80::1%eth0]:80", "has no IPv6 address in its brackets"),
        ("web:80", "pod web: the lab has none of that name; it has shop/web"),
        ("tor:80", "pod tor: the lab has none of that name"),
    ],
)
def test_what_is_no_target(text: str, complaint: str, lab: Lab) -> None:
    with pytest.raises(Failure, match=complaint):
        connections.parse_target(lab, text)


BOTH, FOUR, SIX = WEB, {4: "10.0.0.1"}, {6: "fd00::1"}


@pytest.mark.parametrize(
    ("source", "target", "family", "versions"),
    [(BOTH, BOTH, "both", (4, 6)), (BOTH, BOTH, "6", (6,)), (FOUR, BOTH, "both", (4,)), (BOTH, SIX, "both", (6,))],
)
def test_families(
    source: Mapping[int, str], target: Mapping[int, str], family: connections.Family, versions: tuple[int, ...]
) -> None:
    assert connections._versions(*ends(source, target), family) == versions


@pytest.mark.parametrize(
    ("source", "target", "family", "complaint"),
    [
        (FOUR, BOTH, "6", "^client: has IPv4; ask for that family, or another place$"),
        (BOTH, SIX, "4", "^web: has IPv6; ask for"),
        (BOTH, {}, "both", "^web: has no address; ask"),
        (FOUR, SIX, "both", "^client and web: have no family in common; ask for another place$"),
    ],
)
async def test_families_that_can_t_be_tried(
    source: Mapping[int, str], target: Mapping[int, str], family: connections.Family, complaint: str
) -> None:
    with pytest.raises(Failure, match=complaint):
        await attempts(*ends(source, target), "TCP", family)


def ends(source: Mapping[int, str], target: Mapping[int, str]) -> tuple[Place, Target]:
    client = Place(name="client", kind="pod", netns=Path("/none"), addresses=source)
    return client, Target(name="web", port=80, addresses=target)


@pytest.mark.parametrize(
    ("origin", "kind", "code", "offender", "words"),
    [
        (2, 3, 3, "10.0.0.1", "ICMP port unreachable from 10.0.0.1"),
        (2, 3, 42, "10.0.0.1", "ICMP type 3 code 42 from 10.0.0.1"),
        (3, 1, 4, "fd00::1", "ICMPv6 port unreachable from fd00::1"),
        (2, 11, 0, "", "ICMP time to live exceeded"),
        (1, 0, 0, "", ""),  # the kernel's own, as where a datagram is too long
    ],
)
def test_errors_of_icmp(origin: int, kind: int, code: int, offender: str, words: str) -> None:
    """struct sock_extended_err and the offender's sockaddr (linux/errqueue.h)."""
    data = struct.pack("=IBBBBII", 111, origin, kind, code, 0, 0, 0)
    if ":" in offender:
        data += struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, ip_address(offender).packed, 0)
    elif offender:
        data += struct.pack("=HH4s8x", socket.AF_INET, 0, ip_address(offender).packed)
    else:
        data += bytes(16)
    assert icmp_errors.words(data) == words
