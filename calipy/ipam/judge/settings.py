"""Pools, reservations and the configuration by themselves: what the allocator refuses or can't tell apart. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from itertools import combinations

from calipy.ipam.judge.worlds import Findings, World
from calipy.resources import ip_pools, ip_reservations, ipam_configurations
from calipy.resources.metadata import Kind, R


def look(world: World, findings: Findings) -> None:
    """Puts what is wrong with settings into `findings`."""
    snapshot = world.snapshot
    _refused(ip_pools.KIND, snapshot.pools, findings)
    _refused(ip_reservations.KIND, snapshot.reservations, findings)
    _refused(ipam_configurations.KIND, [snapshot.configuration], findings)
    for one, other in combinations(world.pools, 2):
        ours, theirs = ipaddress.ip_network(one.spec.cidr), ipaddress.ip_network(other.spec.cidr)
        if ours.version == theirs.version and ours.overlaps(theirs):
            keys = [ip_pools.KIND.key(other), ip_pools.KIND.key(one)]
            words = f"pools {one.metadata.name} ({ours}) and {other.metadata.name} ({theirs}) overlap"
            findings.add("pools-overlap", "error", keys, words, "disable one of them, then empty and delete it")


def _refused(kind: Kind[R], values: Iterable[R], findings: Findings) -> None:
    for value in values:
        for problem in kind.problems(value):
            words = f"{problem.field}: {problem.value!r}: {problem.reason}; agents keep its last good version"
            findings.add("refused", "error", [kind.key(value)], words, problem.remedy)
