"""Agents with their BGP sidecars: what BGP learns reaches the FIB and stays there, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from msgspec import structs

from calipy.explain.query import Unanswered
from calipy.explain.report import NodeReport, SessionReport
from calipy.lab.waiting import eventually
from calipy.resources import bgp_configurations, block_affinities, secrets
from calipy.resources.bgp_configurations import BGPConfiguration, BGPConfigurationSpec, NodeMeshPassword
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec
from calipy.resources.metadata import ObjectMeta
from calipy.resources.secrets import Secret, SecretKeySelector

NEW = "10.245.9.0/26"


class RouteMonitor:
    """Takes note of each change of a route that BGP brought to a machine."""

    def __init__(self, machine) -> None:
        self.process = subprocess.Popen(
            machine.inside("ip", "-o", "monitor", "route"), stdout=subprocess.PIPE, start_new_session=True
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.changes: list[str] = []

    def look(self) -> list[str]:
        lines = (self.process.stdout.read() or b"").decode().splitlines()
        self.changes += [line.strip() for line in lines if "proto bird" in line]
        return self.changes

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def monitored() -> Iterator:
    made = []

    def make(machine):
        made.append(RouteMonitor(machine))
        return made[-1]

    yield make
    for monitor in made:
        monitor.close()


async def learned(lab, name):
    return (await lab.machines[name].run("ip", "route", "show", "proto", "bird")).text.splitlines()


async def all_told(lab, name):
    """Each node has told this one of its block again."""
    try:
        report = await lab.ask(name, "status", NodeReport)
    except Unanswered as error:
        return str(error)
    missing = [session.name for session in report.sessions if session.node and not session.received]
    return not missing or f"nothing heard of {', '.join(missing)}"


async def claim(lab, node, block):
    """What the allocator does when a node needs another block."""
    name = f"{node}-{block.replace('.', '-').replace('/', '-')}"
    spec = BlockAffinitySpec(cidr=block, node=node, state="confirmed", type="host")
    async with lab.store() as store:
        await store.create(block_affinities.KIND, BlockAffinity(metadata=ObjectMeta(name=name), spec=spec))


async def came_back(lab, node, *parts):
    """Kills parts of a node, all at once, and waits until they are at work again."""
    processes = [lab.machines[node].process(part) for part in parts]
    former = {process.name: (await process.status()).pid for process in processes}
    for process in processes:
        await process.kill()
    for process in processes:

        async def another(process=process):
            return (await process.status()).pid not in (0, former[process.name])

        await eventually(another, f"{process.name} is not started again")
    for name in lab.nodes:
        await lab.sessions_up(name)
        await eventually(lambda name=name: all_told(lab, name), f"{name} hears nothing")


async def test_agent_and_exabgp_die_and_no_route_moves(cluster, monitored):
    lab = await cluster(count=2, families="ipv4")
    for node in lab.nodes:
        await lab.add(f"pod-{node}", node)
    await lab.rest()
    before = {node: await learned(lab, node) for node in lab.nodes}
    assert all(before.values())
    monitors = {node: monitored(lab.machines[node]) for node in lab.nodes}

    for parts in (("agent",), ("bgp",), ("agent", "bgp")):
        await came_back(lab, "n1", *parts)
    assert {node: await learned(lab, node) for node in lab.nodes} == before

    # It goes the same way as any change before it would have gone.
    await claim(lab, "n2", NEW)
    await eventually(lambda: came(monitors["n1"], NEW), f"{NEW} does not reach n1")
    assert [line.split()[0] for line in monitors["n1"].look()] == [NEW]
    assert monitors["n2"].look() == []


async def test_what_bgp_left_behind_goes_once_all_peers_have_told_what_they_know(cluster, monitored):
    lab = await cluster(count=2, families="ipv4")
    for node in lab.nodes:
        await lab.add(f"pod-{node}", node)
    await lab.rest()
    machine = lab.machines["n1"]
    await machine.process("agent").signal(signal.SIGSTOP)
    gateway = (await learned(lab, "n1"))[0].partition(" via ")[2].split()[0]
    await machine.run("ip", "route", "add", NEW, "via", gateway, "proto", "bird", "metric", "1024")
    monitor = monitored(machine)

    await came_back(lab, "n1", "agent", "bgp")

    await eventually(lambda: came(monitor, f"Deleted {NEW}"), f"{NEW} stays")
    assert [line.partition(" via")[0] for line in monitor.look()] == [f"Deleted {NEW}"]


async def test_the_mesh_takes_its_password_from_a_secret_and_nobody_shows_it(cluster):
    lab = await cluster(count=2, families="ipv4")
    mesh = next(session for session in await sessions(lab, "n1") if session.kind == "mesh")
    reference = SecretKeySelector(name="bgp", key="mesh")
    spec = BGPConfigurationSpec(node_mesh_password=NodeMeshPassword(secret_key_ref=reference))
    configuration = BGPConfiguration(metadata=ObjectMeta(name="default"), spec=spec)
    secret = Secret(metadata=ObjectMeta(name="bgp", namespace="kube-system"), data={"mesh": "b3BlbiBzZXNhbWU="})
    began_s = time.monotonic()
    async with lab.store() as store:
        stored = await store.create(secrets.KIND, secret)
        await store.create(bgp_configurations.KIND, configuration)

    async def has_reopened():
        (found,) = [session for session in await sessions(lab, "n1") if session.name == mesh.name]
        return found.state == "up" and found.since_s < time.monotonic() - began_s

    await eventually(has_reopened, "the mesh's session is not opened anew")
    shown = (await lab.machines["n1"].run("cat", "/run/calipy/exabgp.conf")).text
    assert shown.count("md5-password") == 1, "tor's session has none"
    said = "".join(log.read_text() for log in lab.folder.glob("n*/*.log"))
    assert "session with" in said
    assert "sesame" not in said
    assert "b3BlbiBzZXNhbWU" not in said

    async with lab.store() as store:
        await store.delete(secrets.KIND, stored)
        spec = structs.replace(spec, node_mesh_max_restart_time="60s")
        found = await store.get(bgp_configurations.KIND, "default")
        await store.update(bgp_configurations.KIND, found, structs.replace(found.value, spec=spec))

    async def is_down():
        (found,) = [session for session in await sessions(lab, "n1") if session.name == mesh.name]
        return found.state == "down" and "Secret bgp, key mesh: is not known" in found.reason

    await eventually(is_down, "the mesh's session goes on without its password")


async def sessions(lab, name):
    return await lab.ask(name, "sessions", tuple[SessionReport, ...])


async def came(monitor, what):
    return any(what in line for line in monitor.look())
