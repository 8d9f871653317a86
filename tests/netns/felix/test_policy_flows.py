"""Policy and what surrounds it: the host and its own pods, flows that are open, errors that belong to them, fragments,
rejections, logs."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calipy.resources import kinds
from tests.unit.resources.objects import made

A, B, OUT, HOST = "10.244.0.1", "10.244.0.2", "10.9.0.9", "10.9.0.1"
A6, B6, OUT6, HOST6 = "fd00:10::1", "fd00:10::2", "fd00:9::9", "fd00:9::1"
FAMILIES = {4: (A, B, OUT, HOST), 6: (A6, B6, OUT6, HOST6)}
LOG_ALL = Path("/proc/sys/net/netfilter/nf_log_all_netns")


@pytest.fixture
async def n1(felix: Any, world: Any, namespaces: Any) -> Any:
    host, outside = namespaces("n1"), namespaces("out")
    world.uplink(host, outside, "up0", ("10.9.0.1/24", "10.9.0.9/24"), ("fd00:9::1/64", "fd00:9::9/64"))
    outside.run("ip", "route", "add", "10.244.0.0/16", "via", HOST)
    outside.run("ip", "-6", "route", "add", "fd00:10::/64", "via", HOST6)
    node = await felix("n1", host)
    node.outside = outside
    await node.add("a", A, A6)
    await node.add("b", B, B6)
    return node


def policy(name: str, app: str, **rules: Any) -> Any:
    """Of the directions that have rules, in the namespace of all pods."""
    spec = {"selector": f"app == '{app}'", "types": [way.capitalize() for way in rules], **rules}
    return made(kinds.BY_NAME["NetworkPolicy"], spec, name, namespace="default")


@pytest.mark.parametrize("family", [4, 6])
async def test_the_host_reaches_its_own_pods_whatever_policy_says(n1: Any, wire: Any, family: int) -> None:
    a, b, out, host = FAMILIES[family]
    await n1.put(policy("none", "a", ingress=[], egress=[]))
    pod = n1.pods["a"].namespace
    from_host, ear = wire.mouth(n1.host, host), wire.ear(pod, a)
    assert wire.passes(from_host, ear)
    word = wire.word()
    ear.socket.sendto(word, from_host.getsockname()[:2])
    from_host.settimeout(2)
    assert from_host.recv(100) == word, "and the answer comes back"
    assert wire.dropped(wire.mouth(n1.outside, out), ear)
    assert wire.dropped(wire.mouth(n1.pods["b"].namespace, b), ear)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("action", ["Accept", "Drop"])
async def test_to_its_host_a_pod_needs_policys_leave_and_the_settings(
    n1: Any, wire: Any, family: int, action: str
) -> None:
    a, _, _, host = FAMILIES[family]
    await n1.configure(defaultEndpointToHostAction=action)
    mouth, ear = wire.mouth(n1.pods["a"].namespace, a), wire.ear(n1.host, host)
    allow = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [ear.port]}}
    await n1.put(policy("p", "a", egress=[allow]))
    assert wire.passes(mouth, ear) if action == "Accept" else wire.dropped(mouth, ear)
    await n1.put(policy("p", "a", egress=[]))
    assert wire.dropped(wire.mouth(n1.pods["a"].namespace, a), ear)


@pytest.mark.parametrize("family", [4, 6])
async def test_both_ends_have_their_say(n1: Any, wire: Any, family: int) -> None:
    a, b, _, _ = FAMILIES[family]
    pods = {name: pod.namespace for name, pod in n1.pods.items()}
    ear = wire.ear(pods["b"], b)
    allow, deny = [{"action": "Allow"}], [{"action": "Deny"}]
    for out_rules, in_rules, through in (
        (allow, allow, True),
        (allow, deny, False),
        (deny, allow, False),
        (deny, deny, False),
    ):
        await n1.put(policy("from", "a", egress=out_rules), policy("to", "b", ingress=in_rules))
        mouth = wire.mouth(pods["a"], a)
        assert wire.passes(mouth, ear) if through else wire.dropped(mouth, ear), (out_rules, in_rules)


@pytest.mark.parametrize("family", [4, 6])
async def test_open_flows_stay_open_and_new_ones_are_judged(n1: Any, wire: Any, family: int) -> None:
    a, b, _, _ = FAMILIES[family]
    ear = wire.ear(n1.pods["b"].namespace, b)
    mouth = wire.mouth(n1.pods["a"].namespace, a)
    assert wire.passes(mouth, ear)
    ear.socket.sendto(b"yes", mouth.getsockname()[:2])
    mouth.settimeout(2)
    assert mouth.recv(10) == b"yes"
    await n1.put(policy("none", "b", ingress=[], egress=[]), policy("too", "a", ingress=[], egress=[]))
    assert wire.passes(mouth, ear)
    assert wire.dropped(wire.mouth(n1.pods["a"].namespace, a), ear)
    n1.forget([a])
    assert wire.dropped(mouth, ear), "its flow is forgotten"


@pytest.mark.parametrize("family", [4, 6])
async def test_errors_of_an_allowed_flow_come_back_to_a_pod_that_gets_nothing_else(
    n1: Any, wire: Any, family: int
) -> None:
    a, b, _, _ = FAMILIES[family]
    await n1.put(policy("p", "a", ingress=[], egress=[{"action": "Allow"}]), policy("q", "b", egress=[]))
    mouth = wire.mouth(n1.pods["a"].namespace, a)
    mouth.connect((b, 9))
    mouth.settimeout(2)
    mouth.send(b"is anybody there?")
    with pytest.raises(ConnectionRefusedError):
        mouth.recv(100)


@pytest.mark.parametrize("family", [4, 6])
async def test_fragments_are_judged_as_the_whole_that_they_are(n1: Any, wire: Any, family: int) -> None:
    a, b, _, _ = FAMILIES[family]
    ear, other = wire.ear(n1.pods["b"].namespace, b), wire.ear(n1.pods["b"].namespace, b)
    allow = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [ear.port]}}
    await n1.put(policy("p", "b", ingress=[allow]))
    mouth = wire.mouth(n1.pods["a"].namespace, a)
    assert wire.passes(mouth, ear)
    whole = b"x" * 6000
    mouth.sendto(whole, (b, ear.port))
    assert ear.hears(whole)
    mouth.sendto(whole, (b, other.port))
    assert other.hears(whole, wire.NEVER_S) is None


async def test_what_is_denied_may_be_told(n1: Any, wire: Any) -> None:
    await n1.configure(nftablesFilterDenyAction="Reject")
    await n1.put(policy("p", "b", ingress=[{"action": "Deny", "protocol": "UDP"}]))
    for protocol in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with pytest.raises(ConnectionRefusedError):
            knock(wire, n1.pods["a"].namespace, protocol)


def knock(wire: Any, namespace: Any, protocol: int) -> None:
    with wire.inside(namespace.fd):
        mouth = socket.socket(socket.AF_INET, protocol)
    with mouth:
        mouth.settimeout(3)
        mouth.connect((B, 9))
        mouth.send(b"knock")
        mouth.recv(10)


async def test_a_policy_that_comes_and_goes(n1: Any, wire: Any) -> None:
    pods = {name: pod.namespace for name, pod in n1.pods.items()}
    ear = wire.ear(pods["b"], B)
    assert wire.passes(wire.mouth(pods["a"], A), ear)
    await n1.put(policy("p", "b", ingress=[]))
    assert wire.dropped(wire.mouth(pods["a"], A), ear)
    await n1.put(policy("p", "b", ingress=[{"action": "Allow", "source": {"selector": "app == 'a'"}}]))
    assert wire.passes(wire.mouth(pods["a"], A), ear)
    assert wire.dropped(wire.mouth(n1.outside, OUT), ear)
    await n1.put(policy("p", "nobody", ingress=[]))
    assert wire.passes(wire.mouth(n1.outside, OUT), ear)
    listed = n1.host.run("nft", "list", "table", "inet", "calipy")
    assert "cali-pi-np/default/p" not in listed, "it governs nobody here"
    assert "cali40-s-" not in listed, "nor is its set needed"


@contextlib.contextmanager
def logs_of_all_namespaces() -> Iterator[int]:
    """The kernel's log from here on, what rules in namespaces log too."""
    before = LOG_ALL.read_text()
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.lseek(log, 0, os.SEEK_END)
        LOG_ALL.write_text("1")
        yield log
    finally:
        LOG_ALL.write_text(before)
        os.close(log)


def logged(log: int, word: str, seconds: float = 2.0) -> str:
    """The first line with a word in it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            line = os.read(log, 8192).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.01)
            continue
        if word in line:
            return line
    return ""


async def test_what_a_rule_logs_and_that_it_goes_on(n1: Any, wire: Any) -> None:
    ear = wire.ear(n1.pods["b"].namespace, B)
    await n1.configure(logPrefix="%t|%k|%p", logActionRateLimit="5/minute", logActionRateLimitBurst=1)
    with logs_of_all_namespaces() as log:
        await n1.put(policy("p", "b", ingress=[{"action": "Log", "protocol": "UDP"}, {"action": "Allow"}]))
        assert wire.passes(wire.mouth(n1.pods["a"].namespace, A), ear)
        line = logged(log, f"DPT={ear.port}")
        assert "default|np|default/p: IN=calia OUT=calib" in line
        assert f"SRC={A} DST={B}" in line
        assert wire.passes(wire.mouth(n1.pods["a"].namespace, A), ear)
        assert logged(log, f"DPT={ear.port}", 0.2) == "", "no more than so many"
