"""The fault tests' measuring instrument measures: nothing lost where nothing is, loss where a rule drops, rerouting."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.lab.probing import Echo, Probe, Run, build

NEAR, FAR = {4: "10.77.0.1", 6: "fd77::1"}, {4: "10.77.0.2", 6: "fd77::2"}


RULE = "add table ip t; add chain ip t c {{ type filter hook input priority 0; }}; add rule ip t c udp dport 7777 {}"
ODD_ECHO = """
import socket, sys, time
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind((sys.argv[1], 7777))
print("ready", flush=True)
first = None
while True:
    packet, sender = echo.recvfrom(100)
    number = int.from_bytes(packet[4:8], "big")
    if number == 0:
        first, began = packet, time.monotonic()
    elif number != 5:
        echo.sendto(packet, sender)
        echo.sendto(packet, sender)
    if first and time.monotonic() - began > 1.1:
        echo.sendto(first, sender)
        first = None
"""
"""Answers twice, the first datagram after 1.1 s, the sixth never."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("prober"))


class Pair:
    """Two namespaces and a link between them."""

    def __init__(self, near: Any, far: Any) -> None:
        self.near, self.far = near, far
        near.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far.name)
        for namespace, addresses in ((near, NEAR), (far, FAR)):
            namespace.run("ip", "link", "set", "eth0", "up")
            namespace.run("ip", "address", "add", f"{addresses[4]}/24", "dev", "eth0")
            namespace.run("ip", "address", "add", f"{addresses[6]}/64", "dev", "eth0", "nodad")


def runner(namespace: Any) -> Run:
    def run(command: Sequence[str]) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = namespace.popen(*command, stdout=subprocess.PIPE)
        return process

    return run


@pytest.fixture
def pair(namespaces: Callable[[str], Any]) -> Pair:
    return Pair(namespaces("near"), namespaces("far"))


@pytest.mark.parametrize("family", [4, 6])
def test_a_quiet_pair_loses_nothing_at_a_thousand_a_second(pair: Pair, program: Path, family: int) -> None:
    with (
        Echo(runner(pair.far), program, FAR[family]),
        Probe(runner(pair.near), program, {"a": FAR[family]}) as probe,
    ):
        time.sleep(2)
        found = probe.stop().pairs["a"]
    assert found.sent >= 1900
    assert (found.lost, found.duplicates, found.errors, found.ttl_changes) == (0, 0, 0, 0)
    assert (found.received, found.ttls_there, found.ttls_back) == (found.sent, (64,), (64,))
    assert found.first_lost == ()


def test_a_drop_of_a_tenth_of_a_second_is_seen_with_its_time(pair: Pair, program: Path) -> None:
    with Echo(runner(pair.far), program, FAR[4]), Probe(runner(pair.near), program, {"a": FAR[4]}) as probe:
        time.sleep(0.3)
        began = time.monotonic()
        pair.far.run("nft", RULE.format("drop"))
        time.sleep(0.1)
        pair.far.run("nft", "delete table ip t")
        ended = time.monotonic()
        time.sleep(0.3)
        found = probe.stop().pairs["a"]
    assert 50 <= found.lost <= (ended - began) * 1000 + 50
    assert found.sent == found.received + found.lost
    assert found.longest_gap_ms >= 50
    assert len(found.first_lost) == 20
    assert all(began <= lost.sent_at_s <= ended for lost in found.first_lost)
    assert [lost.number for lost in found.first_lost] == sorted(lost.number for lost in found.first_lost)


def test_another_way_is_seen_by_its_ttl(pair: Pair, program: Path) -> None:
    with Echo(runner(pair.far), program, FAR[4]), Probe(runner(pair.near), program, {"a": FAR[4]}) as probe:
        time.sleep(0.1)
        pair.far.run("nft", RULE.format("ip ttl set 63"))
        time.sleep(0.1)
        found = probe.stop().pairs["a"]
    assert (found.ttls_there, found.ttls_back, found.ttl_changes, found.lost) == ((63, 64), (64,), 1, 0)


def test_late_doubled_and_lost_answers_are_told_apart(pair: Pair, program: Path) -> None:
    odd = pair.far.popen(sys.executable, "-c", ODD_ECHO, FAR[4], stdout=subprocess.PIPE)
    try:
        assert odd.stdout.readline() == b"ready\n"
        with Probe(runner(pair.near), program, {"a": FAR[4]}, rate_hz=20) as probe:
            time.sleep(1.4)
            found = probe.stop().pairs["a"]
    finally:
        odd.kill()
        odd.communicate()
    assert (found.late, found.reordered, found.lost) == (1, 1, 1)
    assert [lost.number for lost in found.first_lost] == [5]
    assert found.duplicates == found.received - 1


def test_a_target_that_nobody_answers_for_is_all_loss_and_no_hang(pair: Pair, program: Path) -> None:
    targets = {"deaf": FAR[4], "away": "203.0.113.1"}
    with Probe(runner(pair.near), program, targets, rate_hz=100) as probe:
        time.sleep(0.2)
        found = probe.stop().pairs
    assert (found["deaf"].received, found["away"].received) == (0, 0)
    assert found["deaf"].lost == found["deaf"].sent > 0
    assert found["away"].errors == found["away"].sent
    assert found["away"].last_error == "Network is unreachable"
