"""What others do to what is a node's own, on a whole node: repaired within a second of the kernel's notification, and
counted. All kinds of change on one dataplane: tests/netns/felix/test_foreign_changes.py."""

from __future__ import annotations

import pytest

from calipy.explain.report import NodeReport
from calipy.lab.machines import MachineError
from calipy.lab.waiting import together
from tests.lab.watching import LINKS, ROUTES, told_at, watching

NODES = ("n1", "n2", "n3")


async def a_pod_a_node(lab):
    pods = await together(lab.add(f"{node}-a", node) for node in NODES)
    await lab.rest()
    await lab.told_all(*NODES)
    return {pod.node: pod for pod in pods}


async def repairs(lab, name):
    return (await lab.ask(name, "status", NodeReport)).repairs


async def repaired(lab, monitor, command, *words):
    """Does something on n1; what has these words is deleted by it, and must be there again within a second."""
    machine = lab.machines["n1"]
    async with watching(machine, monitor) as seen:
        await machine.run("sh", "-ec", command)
        for word in words:
            deleted, again = await seen.told(f"Deleted {word}", f"] {word}")
            assert (told_at(again) - told_at(deleted)).total_seconds() < 1, (deleted, again)


async def test_deleted_routes_are_there_again_and_counted(cluster):
    lab = await cluster()
    pods = await a_pod_a_node(lab)
    far = sorted(await lab.blocks_of("n3"))
    assert await repairs(lab, "n1") == {}

    for count, prefix in enumerate([*pods["n1"].addresses, *far], 1):
        await repaired(lab, ROUTES, f"ip route delete {prefix}", f"{prefix} ")
        assert await repairs(lab, "n1") == {"routes": count}
    await lab.rest()


async def test_a_deleted_tunnel_and_its_address_are_there_again_and_counted(cluster):
    lab = await cluster(encapsulation="vxlan", families="ipv4")
    await a_pod_a_node(lab)
    machine = lab.machines["n1"]
    address = (await machine.run("ip", "-br", "-4", "address", "show", "dev", "vxlan.calico")).text.split()[-1]
    index = (await machine.run("cat", "/sys/class/net/vxlan.calico/ifindex")).text.strip()
    assert await repairs(lab, "n1") == {}

    await repaired(
        lab, LINKS, f"ip address delete {address} dev vxlan.calico", f"{index}: vxlan.calico    inet {address}"
    )
    assert await repairs(lab, "n1") == {"links": 1}

    async with watching(machine, LINKS) as seen:
        await machine.run("ip", "link", "delete", "vxlan.calico")
        (deleted,) = await seen.told(f"Deleted {index}: vxlan.calico: ")
        (again,) = await seen.told(f": vxlan.calico    inet {address}")
        assert (told_at(again) - told_at(deleted)).total_seconds() < 1, (deleted, again)
    await lab.rest()
    assert (await repairs(lab, "n1"))["links"] == 2


async def test_an_owned_table_is_left_alone_and_one_between_two_agents_is_repaired_at_start(cluster):
    lab = await cluster()
    await a_pod_a_node(lab)
    machine = lab.machines["n1"]
    listed = (await machine.run("nft", "-s", "list", "table", "inet", "calipy")).text

    await machine.run("nft", "flush", "ruleset")
    with pytest.raises(MachineError, match="Operation not permitted"):
        await machine.run("nft", "delete", "table", "inet", "calipy")

    assert (await machine.run("nft", "-s", "list", "table", "inet", "calipy")).text == listed
    assert await repairs(lab, "n1") == {}

    await machine.process("agent").stop()
    await machine.run("nft", "flush", "ruleset")
    assert not (await machine.run("nft", "list", "ruleset")).text
    await lab.start_part("n1", "agent")
    await lab.ready("n1")

    assert sorted((await machine.run("nft", "-s", "list", "table", "inet", "calipy")).text.split()) == sorted(
        listed.split()
    )
    await lab.rest()
