"""The judge of a cluster's addresses: a snapshot in, findings and totals out. Pure.

`values` says what goes in and comes out; `settings`, `blocks`, `owners`, `handles` and `holders` look for what is
wrong, each in its own part; `totals` counts. `pycalicoctl ipam check` prints the verdict, the collection of leaks acts
on it: by the standing of each allocation, never by a finding's words.
Not here: reading the store (`ipam.snapshot`), how long a leak must have been seen (the collector's business).
"""

from __future__ import annotations

from calipy.ipam.judge import blocks, handles, holders, owners, settings, totals
from calipy.ipam.judge.values import Finding, Snapshot, Verdict
from calipy.ipam.judge.worlds import Findings, World

_ORDER = {"error": 0, "warning": 1, "note": 2}


def judge(snapshot: Snapshot, now_s: float) -> Verdict:
    """What is wrong in a snapshot that was taken at `now_s` (seconds since 1970), and what there is. The worst findings
    come first; those of one class by object."""
    world = World(snapshot, now_s)
    findings = Findings(snapshot.moving)
    settings.look(world, findings)
    blocks.look(world, findings)
    owners.look(world, findings)
    handles.look(world, findings)
    allocations = holders.look(world, findings)
    return Verdict(
        revision=snapshot.revision,
        findings=tuple(sorted(findings.found, key=_rank)),
        allocations=allocations,
        pools=totals.of_pools(world, allocations),
        blocks=totals.of_blocks(world, allocations),
    )


def _rank(finding: Finding) -> tuple[int, str, str, str]:
    return _ORDER[finding.severity], finding.what, finding.object, finding.address
