"""`calipy lab demo`: a cluster from nothing to the last packet, shown, and removed again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from calipy.console.progress import Steps, duration
from calipy.console.tables import Column, Part, Table, show_parts
from calipy.explain.report import RouteReport
from calipy.lab import lifecycle, pods, views
from calipy.lab.cluster import Lab
from calipy.lab.convergence import carried, reaches
from calipy.lab.pods import Listen, Wish
from calipy.lab.reachability import Probe
from calipy.lab.topology import Plan
from calipy.lab.waiting import together

_SHOWN: Final = "n1"
"""The node whose routes are shown."""


async def demonstrate(folder: Path, *, keep: bool, stream: TextIO | None = None) -> int:
    """The demonstration; its exit status: 1 if somebody didn't reach somebody. Whatever happens, all that it made is
    removed, unless it is to be kept and nothing failed."""
    out = stream or sys.stdout
    steps, begun_s = Steps(out), time.monotonic()
    lab = await lifecycle.up(folder, Plan(), steps)
    kept = False
    try:
        good = await _show_all(lab, steps, out)
        kept = keep
    except Exception as failure:
        raise lifecycle.explained(lab, failure) from failure
    finally:
        if not kept:
            async with steps.step("everything removed again"):
                await lifecycle.down(folder)
    verdict = "All is well" if good else "Something is wrong, see above"
    print(f"\n{verdict}, after {duration(time.monotonic() - begun_s)}.", file=out)
    if kept:
        print("The lab is still up: calipy lab status | pods | ping-matrix | exec n1-a ip route", file=out)
        print("Remove it: calipy lab down", file=out)
    return 0 if good else 1


async def _show_all(lab: Lab, steps: Steps, out: TextIO) -> bool:
    wishes = [
        Wish(name=f"{node}-{letter}", node=node, listens=(Listen("TCP", 80),)) for node in lab.nodes for letter in "ab"
    ]
    async with steps.step("two pods on each node, by the CNI forwarder"), lab.store() as store:
        await together(pods.add(lab, store, wish) for wish in wishes)
    async with steps.step("every node has learned the others' blocks by BGP"):
        await carried(lab, "none")
    async with steps.step("who reaches whom, routed without encapsulation"):
        routed = await reaches(lab)
    await _tables(lab, steps, routed, out)
    async with steps.step("the pools changed to vxlan-crosssubnet while pods run"):
        await lab.encapsulate("vxlan-crosssubnet")
        await carried(lab, "vxlan-crosssubnet")
    async with steps.step("who reaches whom, by vxlan-crosssubnet"):
        encapsulated = await reaches(lab)
    print(file=out)
    show_parts([_matrix("vxlan-crosssubnet", encapsulated), await _routes(lab)], "table", stream=out)
    _complain((*routed, *encapsulated), out)
    print(file=out)
    return all(probe.good for probe in (*routed, *encapsulated))


async def _tables(lab: Lab, steps: Steps, probes: Sequence[Probe], out: TextIO) -> None:
    nodes = await views.node_rows(lab)
    async with lab.store() as store:
        pod_rows = await views.pod_rows(lab, store)
    parts: list[Part] = [
        Table("nodes", "Nodes", nodes, views.NODE_COLUMNS),
        Table("sessions", "BGP sessions", views.session_rows(nodes), views.SESSION_COLUMNS),
        Table("pods", "Pods", pod_rows, views.POD_COLUMNS),
        _matrix("no encapsulation", probes),
        await _routes(lab),
        Table("steps", "Time of each step", steps.times, _STEP_COLUMNS),
    ]
    print(file=out)
    show_parts(parts, "table", stream=out)
    print(file=out)


_STEP_COLUMNS: Final[Sequence[Column[tuple[str, float]]]] = (
    Column("STEP", lambda step: step[0]),
    Column("TIME", lambda step: duration(step[1])),
)


def _matrix(how: str, probes: Sequence[Probe]) -> Part:
    families = " and ".join(f"IPv{family}" for family in sorted({probe.family for probe in probes}))
    title = f"Who reaches whom: {how}, {families}; below outside, the source address that it saw"
    return views.reachability(title, probes)


async def _routes(lab: Lab) -> Part:
    found = await lab.ask(_SHOWN, "routes", tuple[RouteReport, ...])
    return Table("routes", f"Routes of {_SHOWN}", found, views.ROUTE_COLUMNS)


def _complain(probes: Sequence[Probe], out: TextIO) -> None:
    for probe in probes:
        if probe.complaint:
            print(probe.complaint, file=out)
