"""The lab's prober between real namespaces: what it takes for an answer, and what it must not take for one."""

from __future__ import annotations

import pytest

from calipy.lab.reachability import Place, probe

HERE, THERE = {4: "10.77.1.2", 6: "fd00:77:1::2"}, {4: "10.77.2.2", 6: "fd00:77:2::2"}


@pytest.fixture
def network(namespaces):
    """here --- router --- there, with both families; `here` and `there` as places."""
    here, router, there = (namespaces(name) for name in ("here", "router", "there"))
    for namespace in (here, router, there):
        namespace.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for number, host in ((1, here), (2, there)):
        link = f"r{number}"
        router.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        for namespace, name, last in ((router, link, 1), (host, "eth0", 2)):
            namespace.run("ip", "address", "add", f"10.77.{number}.{last}/24", "dev", name)
            namespace.run("ip", "address", "add", f"fd00:77:{number}::{last}/64", "dev", name)
            namespace.run("ip", "link", "set", name, "up")
        host.run("ip", "route", "add", "default", "via", f"10.77.{number}.1")
        host.run("ip", "route", "add", "default", "via", f"fd00:77:{number}::1")
    return (
        Place(name="here", kind="pod", netns=here.path, addresses=HERE),
        router,
        Place(name="there", kind="pod", netns=there.path, addresses=THERE),
    )


async def ask(here, there, patience_s=0.4):
    """Both families, from here to there."""
    return await probe([(here, there, family, (HERE[family],)) for family in (4, 6)], patience_s)


async def test_an_answer_tells_what_the_far_end_saw(network):
    here, _, there = network

    found = await ask(here, there, patience_s=5)

    assert [(one.family, one.answered, one.seen, one.good) for one in found] == [
        (4, True, HERE[4], True),
        (6, True, HERE[6], True),
    ]


async def test_no_way_back_is_no_answer(network):
    here, router, there = network
    router.run("ip", "route", "add", "blackhole", f"{HERE[4]}/32")

    four, six = await ask(here, there)

    assert not four.answered
    assert four.complaint == "here -> there, IPv4: no answer in 0.4 s"
    assert six.good


async def test_a_refusal_is_told_in_the_kernel_s_words(network):
    here, router, there = network
    router.run("ip", "route", "add", "unreachable", f"{THERE[4]}/32")

    four, _ = await ask(here, there)

    assert four.reason == "No route to host"


async def test_a_translated_source_is_seen(network):
    here, router, there = network
    router.run("nft", "add table ip t")
    router.run("nft", "add chain ip t c { type nat hook postrouting priority 100 ; }")
    router.run("nft", "add rule ip t c oif r2 masquerade")

    four, six = await ask(here, there, patience_s=5)

    assert four.complaint == "here -> there, IPv4: seen from 10.77.2.1, and not from 10.77.1.2"
    assert six.good


async def test_a_smaller_mtu_on_the_way_is_found_out_and_passed(network):
    here, router, there = network
    router.run("ip", "link", "set", "r2", "mtu", "1400")

    assert all(one.good for one in await ask(here, there, patience_s=5))


async def test_a_way_that_passes_small_packets_only_is_no_way(network):
    """A path MTU black hole: large packets vanish, and nobody is told."""
    here, router, there = network
    router.run("nft", "add table inet t")
    router.run("nft", "add chain inet t c { type filter hook forward priority 0 ; }")
    router.run("nft", "add rule inet t c meta length > 1450 drop")

    assert not any(one.answered for one in await ask(here, there))


async def test_many_at_once_come_back_in_order(network):
    here, _, there = network
    pairs = [(here, there, family, ()) for family in (4, 6)] * 300

    found = await probe(pairs, 10)

    assert [one.family for one in found] == [4, 6] * 300
    assert all(one.good for one in found)
