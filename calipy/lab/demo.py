"""`calipy lab demo`: a cluster from nothing to the last packet and its policy, shown, and removed again."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Final, TextIO

from calipy.console.formats import yaml_text
from calipy.console.progress import Steps, duration
from calipy.console.tables import Column, Part, Table, show_parts
from calipy.explain.report import RouteReport
from calipy.lab import lifecycle, pods, views
from calipy.lab.cluster import Lab
from calipy.lab.convergence import carried, programmed, reaches
from calipy.lab.pods import Listen, Wish, sandboxes
from calipy.lab.reachability import Probe
from calipy.lab.topology import Plan
from calipy.lab.waiting import together
from calipy.resources import network_policies
from calipy.resources.metadata import ObjectMeta
from calipy.resources.network_policies import NetworkPolicy, NetworkPolicySpec
from calipy.resources.policy_rules import EntityRule, Rule

_SHOWN: Final = "n1"
"""The node whose routes are shown."""
_GUARDED: Final = ("n1-a", "n1-b")
_FRIENDS: Final = ("n1-b", "n2-b", "n3-b")
_POLICY: Final = NetworkPolicy(
    metadata=ObjectMeta(name="friends", namespace="default"),
    spec=NetworkPolicySpec(
        selector="app == 'web'", ingress=(Rule(action="Allow", source=EntityRule(selector="role == 'friend'")),)
    ),
)
"""Who is `app=web` (_GUARDED) takes nothing but from `role=friend` (_FRIENDS), and from its own node as always."""
_QUESTION: Final = ("explain", "default/n1-a", "--from", "default/n3-a", "--port", "80", "--exit-code")
_DENIED: Final = 4
"""What it exits with where it is denied."""
_EXPLAIN_S: Final = 30.0


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
    wishes = [_wish(f"{node}-{letter}", node) for node in lab.nodes for letter in "ab"]
    async with steps.step("two pods on each node, by the CNI forwarder"), lab.store() as store:
        await together(pods.add(lab, store, wish) for wish in wishes)
    async with steps.step("every node has learned the others' blocks by BGP"):
        await carried(lab, "none")
    async with steps.step("who reaches whom, routed without encapsulation"):
        routed = await reaches(lab)
    await _tables(lab, steps, routed, out)
    ruled = await _show_policy(lab, steps, out)
    async with steps.step("the pools changed to vxlan-crosssubnet while pods run"):
        await lab.encapsulate("vxlan-crosssubnet")
        await carried(lab, "vxlan-crosssubnet")
    async with steps.step("who reaches whom, by vxlan-crosssubnet"):
        encapsulated = await reaches(lab)
    print(file=out)
    show_parts([_matrix("vxlan-crosssubnet", encapsulated), await _routes(lab)], "table", stream=out)
    _complain((*routed, *encapsulated), out)
    print(file=out)
    return ruled and all(probe.good for probe in (*routed, *encapsulated))


def _wish(name: str, node: str) -> Wish:
    labels = ({"app": "web"} if name in _GUARDED else {}) | ({"role": "friend"} if name in _FRIENDS else {})
    return Wish(name=name, node=node, labels=labels, listens=(Listen("TCP", 80),))


async def _show_policy(lab: Lab, steps: Steps, out: TextIO) -> bool:
    """A policy applied, what it changes, why one is blocked, and the policy deleted; True if all is as it says."""
    blocked = _blocked(lab)
    async with lab.store() as store:
        async with steps.step("a policy: n1's pods take nothing but from role=friend; in force on all nodes"):
            stored = await store.create(network_policies.KIND, _POLICY)
            await programmed(lab, stored)
        async with steps.step("who reaches whom, under the policy"):
            ruled = await reaches(lab, blocked=blocked)
        print(f"\n{_document(_POLICY)}", file=out)
        title = f"Who reaches whom: under the policy, IPv4 and IPv6; {len(blocked)} pairs are to be blocked"
        show_parts([views.reachability(title, ruled, blocked)], "table", stream=out)
        explained = await _explain(lab, out)
        async with steps.step("the policy deleted: everybody reaches everybody again"):
            await store.delete(network_policies.KIND, stored)
            again = await reaches(lab)
    _complain(again, out)
    return all((_obeyed(ruled, blocked, out), explained, *(probe.good for probe in again)))


def _document(policy: NetworkPolicy) -> str:
    head = {"apiVersion": policy.api_version, "kind": network_policies.KIND.kind}
    return yaml_text({**head, "metadata": policy.metadata, "spec": policy.spec})


def _obeyed(probes: Sequence[Probe], blocked: Set[tuple[str, str]], out: TextIO) -> bool:
    """True if nobody who is blocked gets through, and everybody else does; complains of those of whom that isn't so."""
    barred = [probe for probe in probes if (probe.source, probe.target) in blocked]
    rest = [probe for probe in probes if probe not in barred]
    through = [probe for probe in barred if probe.answered]
    for probe in through:
        print(f"{probe.source} -> {probe.target}, IPv{probe.family}: gets through, against the policy", file=out)
    _complain(rest, out)
    tried = {(probe.source, probe.target) for probe in barred} == blocked
    return tried and not through and all(probe.good for probe in rest)


def _blocked(lab: Lab) -> set[tuple[str, str]]:
    """Those whom the policy keeps apart (_POLICY): (source, target)."""
    strangers = {pod.name for pod in sandboxes(lab)} - set(_FRIENDS)
    others = lab.nodes.keys() - {_SHOWN}
    return {(source, target) for source in strangers | others for target in _GUARDED if source != target}


async def _explain(lab: Lab, out: TextIO) -> bool:
    """Asks, as a user would, why a pair is blocked; True if the answer is that policy denies it."""
    print(f"\n$ pycalicoctl {' '.join(_QUESTION)}", file=out, flush=True)
    program = (sys.executable, "-c", "from calipy.__main__ import pycalicoctl; pycalicoctl()")
    environment = {**os.environ, "CALIPY_DATASTORE": f"sqlite:{lab.folder}/store/datastore.sqlite3"}
    process = await asyncio.create_subprocess_exec(*program, *_QUESTION, env=environment, stdout=out.fileno())
    try:
        async with asyncio.timeout(_EXPLAIN_S):
            status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    print(file=out)
    if status != _DENIED:
        print(f"explain exits with {status}, and not with {_DENIED}: denied", file=out)
    return status == _DENIED


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
