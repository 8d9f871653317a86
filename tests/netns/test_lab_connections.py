"""`lab probe` between real namespaces: what it takes for allowed, refused, filtered and unreachable."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from calipy.lab import echo
from calipy.lab.connections import Attempt, Target, attempts
from calipy.lab.machines import PACKAGES
from tests.netns.conftest import HERE, THERE, place_of

PROTOCOLS = ("TCP", "UDP", "SCTP")
ECHO = {"TCP": "CalIPy asks", "UDP": "CalIPy asks", "SCTP": "INIT ACK"}


@contextmanager
def running(namespace, *command: str) -> Iterator[None]:
    """A process that has said its first line."""
    with namespace.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=PACKAGES) as process:
        try:
            assert process.stdout.readline().startswith(echo.LISTENS.encode())
            yield
        finally:
            process.kill()


def listening(namespace, *ports: str):
    return running(namespace, sys.executable, "-S", "-E", "-m", "calipy.lab.echo", *ports)


def python(namespace, script: str):
    """A listener on TCP/80 that isn't ours."""
    head = "import socket, struct\nl = socket.create_server(('', 80))\nprint('listens on', flush=True)\n"
    return running(namespace, sys.executable, "-S", "-E", "-c", head + script)


async def ask(here, protocol: str, port: int, timeout_s: float = 5, family: str = "both") -> tuple[Attempt, ...]:
    target = Target(name="there", port=port, addresses=THERE)
    return await attempts(place_of(here, HERE), target, protocol, family, timeout_s)  # type: ignore[arg-type]


def filtering(router, *rules: str) -> None:
    """Rules for what goes from here to there."""
    router.run("nft", "add table inet t")
    router.run("nft", "add chain inet t c { type filter hook forward priority 0 ; }")
    for rule in rules:
        router.run("nft", f"add rule inet t c {rule}")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_port_that_answers_is_allowed(protocol, network):
    here, _, there = network
    with listening(there, *(f"{name}/80" for name in PROTOCOLS)):
        found = await ask(here, protocol, 80)
    assert [(one.family, one.address, one.verdict, one.answer, one.reason) for one in found] == [
        (4, THERE[4], "allowed", ECHO[protocol], ""),
        (6, THERE[6], "allowed", ECHO[protocol], ""),
    ]
    assert all(0 < one.seconds < 1 for one in found)


@pytest.mark.parametrize(
    ("protocol", "listens", "reasons"),
    [
        ("TCP", "TCP/80", ["RST", "RST"]),
        ("UDP", "UDP/80", [f"ICMP port unreachable from {THERE[4]}", f"ICMPv6 port unreachable from {THERE[6]}"]),
        ("SCTP", "SCTP/80", ["ABORT", "ABORT"]),
    ],
)
async def test_a_port_on_which_nobody_listens_refuses(protocol, listens, reasons, network):
    here, _, there = network
    with listening(there, listens):
        found = await ask(here, protocol, 81)
    assert [(one.verdict, one.reason, one.answer) for one in found] == [("refused", why, "") for why in reasons]


async def test_a_host_without_sctp_refuses(network):
    if socket_exists():
        pytest.skip("this kernel has SCTP: it answers itself")
    found = await ask(network[0], "SCTP", 80)
    assert [(one.verdict, one.reason) for one in found] == [
        ("refused", f"ICMP protocol unreachable from {THERE[4]}"),
        ("refused", f"ICMPv6 unknown next header from {THERE[6]}"),
    ]


def socket_exists() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_silence_is_filtered(protocol, network):
    here, router, there = network
    filtering(router, "oif r2 drop")
    with listening(there, f"{protocol}/80"):
        found = await ask(here, protocol, 80, timeout_s=0.3)
    assert [(one.verdict, one.reason, one.seconds) for one in found] == [("filtered", "no answer in 0.3 s", 0.3)] * 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_answer_that_does_not_come_back_is_filtered(protocol, network):
    here, router, there = network
    filtering(router, "iif r2 drop")
    with listening(there, f"{protocol}/80"):
        found = await ask(here, protocol, 80, timeout_s=0.3)
    assert [one.verdict for one in found] == ["filtered", "filtered"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_another_error_of_icmp_is_unreachable_and_says_who_sent_it(protocol, network):
    here, router, _ = network
    filtering(router, "reject with icmpx type admin-prohibited")
    four, six = await ask(here, protocol, 80)
    assert (four.verdict, four.reason) == ("unreachable", "ICMP administratively prohibited from 10.77.1.1")
    assert (six.verdict, six.reason) == ("unreachable", "ICMPv6 administratively prohibited from fd00:77:1::1")


async def test_no_way_from_here_is_unreachable(network):
    here, _, _ = network
    here.run("ip", "route", "delete", "default")
    (found,) = await ask(here, "TCP", 80, family="4")
    assert (found.verdict, found.reason) == ("unreachable", "network is unreachable")


async def test_a_reset_on_the_way_refuses(network):
    here, router, there = network
    filtering(router, "tcp dport 80 reject with tcp reset")
    with listening(there, "TCP/80"):
        found = await ask(here, "TCP", 80)
    assert [(one.verdict, one.reason) for one in found] == [("refused", "RST")] * 2


@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
async def test_a_lost_packet_is_no_verdict(protocol, network):
    here, router, there = network
    filtering(router, f"oif r2 ip daddr {THERE[4]} numgen inc mod 3 < 2 counter drop")
    with listening(there, f"{protocol}/80"):
        (found,) = await ask(here, protocol, 80, timeout_s=2, family="4")
    assert (found.verdict, found.answer) == ("allowed", ECHO[protocol])
    assert found.seconds < 0.5, "from the question that was answered, not from the first"
    assert "counter packets 2 " in router.run("nft", "list", "ruleset")


async def test_a_stateful_firewall_takes_our_sctp_for_sctp(network):
    """Connection tracking judges checksum, tags and chunks (nf_conntrack_proto_sctp)."""
    here, router, there = network
    filtering(
        router, "ct state invalid counter drop", "ct state established accept",
        "sctp dport 80 sctp chunk init exists ct state new accept", "meta l4proto sctp drop",
    )  # fmt: skip
    with listening(there, "SCTP/80"):
        found = await ask(here, "SCTP", 80, timeout_s=2)
    assert [one.verdict for one in found] == ["allowed", "allowed"]
    assert "counter packets 0 " in router.run("nft", "list", "ruleset")


@pytest.mark.parametrize(
    ("script", "answer", "reason"),
    [
        ("c, _ = l.accept(); c.recv(99); c.sendall(b'220 hi\\r\\nmore'); c.recv(99)", "220 hi", ""),
        ("c, _ = l.accept(); c.recv(99); c.sendall(b'\\x00\\x1b[2J\\xff'); c.recv(99)", "..[2J\ufffd", ""),
        ("c, _ = l.accept(); c.recv(99); c.recv(99)", "", "connected, and nothing came back"),
        ("c, _ = l.accept(); c.shutdown(1); l.accept()", "", "connected, and nothing came back"),
        (
            "c, _ = l.accept(); c.setsockopt(1, 13, struct.pack('ii', 1, 0)); c.recv(99); c.close(); l.accept()",
            "",
            "connected, then connection reset by peer",
        ),
    ],
    ids=["greets", "unprintable", "silent", "closes", "resets"],
)
async def test_whoever_accepts_a_connection_allows_it(script, answer, reason, network):
    here, _, there = network
    with python(there, script):
        (found,) = await ask(here, "TCP", 80, timeout_s=0.5, family="4")
    assert (found.verdict, found.answer, found.reason) == ("allowed", answer, reason)


async def test_an_answer_to_somebody_else_s_question_is_none(network):
    """Raw sockets see all SCTP of their host."""
    here, _, there = network
    noise = (
        "import socket, time\nfrom calipy.lab import sctp\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)\nprint('listens on', flush=True)\n"
        "d, a = s.recvfrom(9999)\nq = sctp.decode(d[20:])\n"
        f"s.sendto(sctp.encode(sctp.answer(sctp.ask(q.source, 80, 1), {{80}}, 5)), ('{HERE[4]}', 0))\n"
        f"s.sendto(sctp.encode(sctp.answer(q, {{80}}, 5))[:-1] + b'x', ('{HERE[4]}', 0))\n"
        f"s.sendto(b'short', ('{HERE[4]}', 0))\ntime.sleep(9)\n"
    )
    with running(there, sys.executable, "-S", "-E", "-c", noise):
        (found,) = await ask(here, "SCTP", 80, timeout_s=0.4, family="4")
    assert found.verdict == "filtered"
