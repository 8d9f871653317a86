"""Nodes that fall silent, sidecars that stand still or restart, Nodes that are deleted: what the others make of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import pytest

from calipy.lab.topology import HOLD_TIME_S, TOR
from calipy.lab.waiting import eventually, together
from calipy.resources import bgp_configurations, block_affinities, nodes
from calipy.resources.bgp_configurations import BGPConfiguration, BGPConfigurationSpec
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec
from calipy.resources.metadata import ObjectMeta
from tests.lab.watching import ROUTES, learned, processes, watching

NODES = ("n1", "n2", "n3")
KEEPALIVE_S = HOLD_TIME_S / 3


async def a_pod_a_node(lab):
    await together(lab.add(f"{node}-a", node) for node in NODES)
    await lab.rest()


async def gone(lab, where, blocks):
    """Waits until no route to any of the blocks is left on these machines."""

    async def none_left():
        left = {name: await learned(lab.machines[name]) & blocks for name in where}
        return not any(left.values()) or str(left)

    await eventually(none_left, "routes stay")


async def silenced(lab, name, fault):
    """Makes a node fall silent, without a word to its peers."""
    match fault:
        case "link cut":
            await lab.cut(name)
        case "power cut":
            await lab.power_off(name)
        case "exabgp stopped":
            await lab.machines[name].process("bgp").signal(signal.SIGSTOP)


async def restored(lab, name, fault):
    match fault:
        case "link cut":
            await lab.cut(name, heal=True)
        case "power cut":
            await lab.power_on(name)
        case "exabgp stopped":
            await lab.machines[name].process("bgp").signal(signal.SIGCONT)


@pytest.mark.parametrize("fault", ["link cut", "power cut", "exabgp stopped"])
async def test_a_silent_node_is_given_up_when_the_hold_time_is_over_and_is_back_without_help(fault, cluster):
    lab = await cluster()
    await a_pod_a_node(lab)
    if fault == "exabgp stopped":
        await lab.unsupervised("n3", "bgp")  # whose supervisor would end this after some seconds
        await lab.told_all("n1")
    blocks = await lab.blocks_of("n3")
    async with watching(lab.machines["n1"], ROUTES) as seen:
        start_s = time.monotonic()
        await silenced(lab, "n3", fault)
        await seen.told(*(f"Deleted {block} " for block in blocks))
        lasted_s = time.monotonic() - start_s

        # From the last keepalive, which was there up to a third of the hold time before.
        assert lasted_s > HOLD_TIME_S - KEEPALIVE_S - 1
        await gone(lab, ("n1", "n2", TOR), blocks)
        assert not [session.name for name in ("n1", "n2") for session in await lab.sessions(name) if session.stale]
        await restored(lab, "n3", fault)
        if fault != "power cut":
            await lab.rest()
        await together(lab.sessions_up(name) for name in NODES)
        await seen.told(*(f"] {block} " for block in blocks))


# --- ExaBGP ends, and comes back ---


async def restarts(lab, name):
    return (await lab.machines[name].process("bgp").status()).restarts


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_no_route_moves_while_exabgp_restarts(number, cluster):
    lab = await cluster()
    await a_pod_a_node(lab)
    await lab.told_all(*NODES)
    async with contextlib.AsyncExitStack() as stack:
        seen = [await stack.enter_async_context(watching(lab.machines[name], ROUTES)) for name in (*NODES, TOR)]

        await lab.machines["n3"].process("bgp").signal(number)
        await eventually(lambda: is_back(lab, "n3"), "ExaBGP is started again")
        await lab.sessions_up("n3")
        await lab.told_all(*NODES)

        assert [await one.changes() for one in seen] == [[], [], [], []]
    assert not lab.report(await lab.matrix())


async def is_back(lab, name):
    return await restarts(lab, name) == 1


async def claimed(lab, node, block):
    """What the allocator does once a pod needs an address."""
    name = f"{node}-{block.replace('.', '-').replace('/', '-')}"
    spec = BlockAffinitySpec(cidr=block, node=node, state="confirmed", type="host")
    async with lab.store() as store:
        await store.create(block_affinities.KIND, BlockAffinity(metadata=ObjectMeta(name=name), spec=spec))

    async def known():
        return all([block in await learned(lab.machines[name]) for name in NODES if name != node])

    await eventually(known, f"a route to {block}")
    return name


async def test_what_a_restarted_exabgp_has_no_more_is_withdrawn_at_end_of_rib(cluster):
    lab = await cluster()
    await a_pod_a_node(lab)
    name = await claimed(lab, "n3", "10.244.250.0/26")
    await lab.told_all(*NODES)
    async with watching(lab.machines["n1"], ROUTES) as seen:
        await lab.machines["n3"].process("bgp").stop()
        async with lab.store() as store:
            await store.delete(block_affinities.KIND, await store.get(block_affinities.KIND, name))
        await eventually(lambda: holds(lab, "n1"), "n1 holds the routes of n3")
        assert await seen.changes() == []

        await lab.start_part("n3", "bgp")
        await lab.sessions_up("n3")
        await lab.told_all(*NODES)

        (change,) = await seen.changes()
        assert "Deleted 10.244.250.0/26 via 10.9.1.1 dev eth0 proto bird" in change
    await gone(lab, ("n2", TOR), {"10.244.250.0/26"})
    assert not lab.report(await lab.matrix())


async def holds(lab, name):
    return any(session.stale for session in await lab.sessions(name) if session.node == "n3")


async def test_what_is_not_told_again_within_the_restart_time_is_withdrawn(cluster):
    lab = await cluster(families="ipv4")
    spec = BGPConfigurationSpec(node_mesh_max_restart_time="4s")
    async with lab.store() as store:
        await store.create(bgp_configurations.KIND, BGPConfiguration(metadata=ObjectMeta(name="default"), spec=spec))
    await a_pod_a_node(lab)
    for name in NODES:
        await eventually(lambda name=name: written(lab, name, "graceful-restart 4;"), "the restart time is written")
        await lab.restart(name, "bgp")
    await lab.told_all(*NODES)
    blocks = await lab.blocks_of("n3")
    async with watching(lab.machines["n1"], ROUTES) as seen:
        start_s = time.monotonic()
        await lab.machines["n3"].process("bgp").stop()
        await eventually(lambda: holds(lab, "n1"), "n1 holds the routes of n3")
        await seen.told(*(f"Deleted {block} " for block in blocks))

        assert time.monotonic() - start_s > 4 - 0.5
    await gone(lab, ("n2",), blocks)
    await lab.start_part("n3", "bgp")
    await lab.rest()


async def written(lab, name, words):
    """True if ExaBGP's configuration has these words."""
    return words in (await lab.machines[name].run("cat", "/run/calipy/exabgp.conf")).text


# --- the pipe stands still ---


async def test_a_pipe_that_stands_still_is_started_again_before_any_session_is_lost(cluster):
    lab = await cluster()
    await a_pod_a_node(lab)
    await lab.told_all(*NODES)
    async with contextlib.AsyncExitStack() as stack:
        seen = [await stack.enter_async_context(watching(lab.machines[name], ROUTES)) for name in (*NODES, TOR)]

        (pipe,) = processes(lab.machines["n3"], "bgp/pipe.py")
        os.kill(pipe, signal.SIGSTOP)
        await eventually(lambda: is_back(lab, "n3"), "the supervisor starts the sidecar again")
        assert (await lab.machines["n3"].process("bgp").status()).unwell == 1
        await lab.sessions_up("n3")
        await lab.told_all(*NODES)

        assert [await one.changes() for one in seen] == [[], [], [], []]
    said = (lab.folder / "n1" / "agent.log").read_text()
    assert f"the session with {lab.nodes['n3'].address(4)} is down: closing connection" in said
    assert "hold" not in said.replace("routes are held", "")
    assert not lab.report(await lab.matrix())


async def test_a_pipe_that_stands_still_for_the_hold_time_moves_no_session_and_no_route(cluster):
    lab = await cluster()
    await a_pod_a_node(lab)
    await lab.unsupervised("n3", "bgp")
    await lab.told_all(*NODES)
    async with contextlib.AsyncExitStack() as stack:
        seen = [await stack.enter_async_context(watching(lab.machines[name], ROUTES)) for name in (*NODES, TOR)]
        (pipe,) = processes(lab.machines["n3"], "bgp/pipe.py")
        os.kill(pipe, signal.SIGSTOP)
        await asyncio.sleep(HOLD_TIME_S)

        assert {session.state for name in ("n1", "n2") for session in await lab.sessions(name)} == {"up"}
        os.kill(pipe, signal.SIGCONT)
        await claimed(lab, "n3", "10.244.250.0/26")
        changes = [await one.changes() for one in seen]
    assert all("10.244.250.0/26" in line for lines in changes for line in lines), changes


# --- a Node goes ---


async def test_the_routes_of_a_node_that_is_deleted_go_at_once_everywhere(cluster):
    lab = await cluster()
    await a_pod_a_node(lab)
    await lab.told_all(*NODES)
    blocks = await lab.blocks_of("n3")
    async with watching(lab.machines["n1"], ROUTES) as seen:
        async with lab.store() as store:
            await store.delete(nodes.KIND, await store.get(nodes.KIND, "n3"))
        await seen.told(*(f"Deleted {block} " for block in blocks), within_s=HOLD_TIME_S - KEEPALIVE_S - 1)
        await gone(lab, ("n1", "n2", "tor"), blocks)
