"""Processes that allocate on one store and are killed -9 at random: no address twice, none leaked.

4 processes of 40 allocations each, some seconds; a few less by CALIPY_EFFORT=quick, 8 of 500 by CALIPY_EFFORT=long.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

from msgspec import structs

from calipy.datastore.sqlite import SQLiteStore
from calipy.ipam import snapshot
from calipy.ipam.judge import judge
from calipy.resources import ip_pools, nodes
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import Node
from calipy.resources.pods import POD_IPS, Pod, PodSpec
from tests.effort import at_effort

PROCESSES, COUNT, KILLS, POOL = at_effort(
    quick=(3, 16, 5, "10.0.0.0/28"), whole=(4, 40, 12, "10.0.0.0/27"), long=(8, 500, 150, "10.0.0.0/26")
)
SEED = int(os.environ.get("CALIPY_STRESS_SEED", "1"))


def pods_of(journals: Path) -> list[Pod]:
    """The pods that are there, as the runtimes know them."""
    found: dict[str, tuple[str, str, list[str]]] = {}
    for path in journals.iterdir():
        for line in path.read_text().splitlines():
            word, name, *addresses = line.split()
            if word != "FIGURE":
                found[name] = (word, path.name, addresses)
    return [_pod(name, node, addresses) for name, (word, node, addresses) in found.items() if word == "HAS"]


def _pod(name: str, node: str, addresses: list[str]) -> Pod:
    shown = ",".join(f"{address}/{128 if ':' in address else 32}" for address in addresses)
    meta = ObjectMeta(namespace="default", name=name, annotations={POD_IPS: shown})
    return Pod(metadata=meta, spec=PodSpec(node_name=node))


async def test_killed_processes_leave_no_address_twice_and_none_leaked(tmp_path: Path) -> None:
    path, journals = tmp_path / "store.db", tmp_path / "journals"
    journals.mkdir()
    store = await SQLiteStore.open(path)
    for n in range(PROCESSES):
        await store.create(nodes.KIND, Node(metadata=ObjectMeta(name=f"n{n}")))
    # Small enough that blocks run out: nodes borrow, steal and are refused.
    for name, cidr, size in (("four", POOL, 29), ("six", "fd00::/48", 122)):
        await store.create(
            ip_pools.KIND, IPPool(metadata=ObjectMeta(name=name), spec=IPPoolSpec(cidr=cidr, block_size=size))
        )
    driver = Path(__file__).with_name("ipam_stress.py")
    command = [sys.executable, driver, path, journals, PROCESSES, COUNT, KILLS, SEED]
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=PIPE, stderr=PIPE)
    told, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    figures = json.loads(told)
    print(figures)
    assert figures["begun"] >= PROCESSES * COUNT
    assert figures["killed"] > 0
    pods = pods_of(journals)
    found = structs.replace(await snapshot.read(store), pods=tuple(pods))
    verdict = judge(found, time.time())
    await store.close()
    assert [str(finding) for finding in verdict.findings if finding.severity != "note"] == []
    assert sorted(allocation.address for allocation in verdict.allocations) == sorted(
        note.partition("/")[0] for pod in pods for note in pod.metadata.annotations[POD_IPS].split(",")
    )
