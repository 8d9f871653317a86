"""Pools, reservations and the configuration by themselves: what the allocator refuses or can't tell apart. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from calipy.ipam.judge.worlds import Findings, World
from calipy.resources import ip_pools, ip_reservations, ipam_configurations
from calipy.resources.metadata import Key, Kind, R


def look(world: World, findings: Findings) -> None:
    """Puts what is wrong with settings into `findings`."""
    snapshot = world.snapshot
    _refused(ip_pools.KIND, snapshot.pools, findings)
    _refused(ip_reservations.KIND, snapshot.reservations, findings)
    _refused(ipam_configurations.KIND, [snapshot.configuration], findings)
    for name, problem in ip_pools.overlaps(world.masked).items():
        words = f"{problem.field}: {problem.value!r}: {problem.reason}; no address is given out of this pool"
        findings.add("pools-overlap", "error", [Key(ip_pools.KIND.name, name)], words, problem.remedy)


def _refused(kind: Kind[R], values: Iterable[R], findings: Findings) -> None:
    for value in values:
        for problem in kind.problems(value):
            words = f"{problem.field}: {problem.value!r}: {problem.reason}; agents keep its last good version"
            findings.add("refused", "error", [kind.key(value)], words, problem.remedy)
