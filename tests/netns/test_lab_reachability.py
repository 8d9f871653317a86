"""The lab's prober between real namespaces: what it takes for an answer, and what it must not take for one."""

from __future__ import annotations

from calipy.lab.reachability import probe
from tests.netns.conftest import HERE, THERE, place_of


async def ask(here, there, patience_s=0.4):
    """Both families, from here to there."""
    ends = place_of(here, HERE), place_of(there, THERE)
    return await probe([(*ends, family, (HERE[family],)) for family in (4, 6)], patience_s)


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
    pairs = [(place_of(here, HERE), place_of(there, THERE), family, ()) for family in (4, 6)] * 300

    found = await probe(pairs, 10)

    assert [one.family for one in found] == [4, 6] * 300
    assert all(one.good for one in found)
