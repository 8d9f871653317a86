"""`ipam check`: the judge's verdict in words, as calicoctl says it, and as calicoctl's report. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from calipy.ipam.judge.values import Allocation, Finding, Snapshot, Verdict, What
from calipy.resources import ipam_handles
from calipy.resources.cluster_informations import ClusterInformationSpec
from calipy.resources.ipam_blocks import AllocationAttribute, IPAMBlock

_MOST_NODES = 20


class _Scan(Struct, frozen=True, gc=False):
    """One part of the check: what is looked for, and the lines that count its findings."""

    looks_for: str
    counts: tuple[tuple[tuple[What, ...], str], ...]
    gap: bool = False


_UNUSED: tuple[What, ...] = ("leaked", "tunnel-of-gone-node", "tunnel-unused")
_SCANS = (
    _Scan(
        "IPs that are allocated but not actually in use",
        ((_UNUSED, "IPs that are allocated in IPAM but not actually in use"),),
    ),
    _Scan(
        "IPs that are in use by a workload or node but not allocated in IPAM",
        (
            (("held-twice", "held-by-other"), "IPs with several users"),
            (("pod-outside-pools",), "in-use IPs that are not in active IP pools"),
            (("not-allocated",), "in-use IPs that are in active IP pools but have no corresponding IPAM allocation"),
        ),
        gap=True,
    ),
    _Scan("IPAM handles with no matching IPs", ((("handle-without-allocation",), "handles with no matching IPs"),)),
    _Scan(
        "IPs with missing handle",
        ((("allocation-without-handle",), "handles mentioned in blocks with no matching handle resource"),),
    ),
)  # fmt: skip
_SCANNED = {what for scan in _SCANS for whats, _ in scan.counts for what in whats}


def lines(snapshot: Snapshot, verdict: Verdict, *, all_ips: bool, problem_ips: bool) -> Iterator[str]:
    """The check, line by line. `problem_ips`: each finding and what to do; `all_ips`: each allocation besides."""
    yield "Checking IPAM for inconsistencies..."
    yield ""
    yield from _blocks(snapshot, verdict, all_ips=all_ips)
    yield from _pools(snapshot)
    yield from _users(verdict)
    yield from _nodes(verdict)
    for scan in _SCANS:
        yield from _scanned(scan, verdict, show=all_ips or problem_ips)
    yield from _others(verdict, show=all_ips or problem_ips)
    found = problems(verdict)
    if found and not (all_ips or problem_ips):
        yield "--show-problem-ips names them, and says what to do."
    yield f"Check complete; found {len(found)} problems."


def problems(verdict: Verdict) -> tuple[Finding, ...]:
    """What counts as a problem: errors and warnings, not notes."""
    return (*verdict.of("error"), *verdict.of("warning"))


def _blocks(snapshot: Snapshot, verdict: Verdict, *, all_ips: bool) -> Iterator[str]:
    affinities = {block.spec.cidr: block.spec.affinity for block in snapshot.blocks}
    yield "Loading all IPAM blocks..."
    yield f"Found {len(verdict.blocks)} IPAM blocks."
    for block in verdict.blocks:
        yield f" IPAM block {block.cidr} affinity={affinities.get(block.cidr) or '<none>'}:"
        for allocation in verdict.allocations if all_ips else ():
            if allocation.block == block.cidr:
                yield f"  {allocation.address} allocated; attrs {_attributes(allocation)}"
    yield f"IPAM blocks record {len(verdict.allocations)} allocations."
    yield ""


def _attributes(allocation: Allocation) -> str:
    extra = {
        "namespace": allocation.namespace, "node": allocation.node, "pod": allocation.pod, "type": allocation.type,
    }  # fmt: skip
    said = ",".join(f"{name}={value}" for name, value in extra.items() if value)
    return f"Main:{allocation.handle or '<none>'} Extra:{said}"


def _pools(snapshot: Snapshot) -> Iterator[str]:
    active = [pool for pool in snapshot.pools if not pool.spec.disabled]
    yield "Loading all IPAM pools..."
    yield from (f"  {pool.spec.cidr}" for pool in active)
    yield f"Found {len(active)} active IP pools."
    yield ""


def _users(verdict: Verdict) -> Iterator[str]:
    used = [allocation for allocation in verdict.allocations if allocation.standing == "used"]
    tunnels = sum(bool(allocation.type) for allocation in used)
    yield f"Found {tunnels} node tunnel IPs."
    yield f"Found {len(used) - tunnels} workload IPs."
    yield f"Workloads and nodes are using {len(used)} IPs."
    yield ""


def _nodes(verdict: Verdict) -> Iterator[str]:
    counted = Counter(allocation.node for allocation in verdict.allocations if allocation.node).most_common()
    yield f"Looking for top (up to {_MOST_NODES}) nodes by allocations..."
    yield from (f"  {node} has {count} allocations" for node, count in counted[:_MOST_NODES])
    if counted:
        yield f"Node with most allocations has {counted[0][1]}; median is {counted[len(counted) // 2][1]}"
    yield ""


def _scanned(scan: _Scan, verdict: Verdict, *, show: bool) -> Iterator[str]:
    yield f"Scanning for {scan.looks_for}..."
    for whats, counted in scan.counts:
        found = [finding for finding in verdict.findings if finding.what in whats]
        if show:
            yield from map(_finding, found)
        yield f"Found {len(found)} {counted}."
    if scan.gap:
        yield ""


def _others(verdict: Verdict, *, show: bool) -> Iterator[str]:
    """What calicoctl doesn't look at: claims, owners and sizes of blocks, counters, settings."""
    found = [finding for finding in verdict.findings if finding.what not in _SCANNED]
    notes = sum(finding.severity == "note" for finding in found)
    yield "Scanning blocks, claims, counters and settings..."
    if show:
        yield from map(_finding, found)
    yield f"Found {len(found) - notes} other problems, and {notes} things worth a note."
    yield ""


def _finding(finding: Finding) -> str:
    return f"  {finding}"


def report(
    snapshot: Snapshot, verdict: Verdict, cluster: ClusterInformationSpec, *, revision: str, version: str
) -> dict[str, object]:  # fmt: skip
    """calicoctl's report, as its `ipam release --from-report` reads it. `revision`: that of ClusterInformation."""
    times = dict(_timestamps(snapshot.blocks))
    allocations: dict[str, list[dict[str, object]]] = {}
    for allocation in verdict.allocations:
        allocations.setdefault(allocation.address, []).append(_reported(allocation, times))
    leaked = {finding.object for finding in verdict.findings if finding.what == "handle-without-allocation"}
    handles = [
        {"ID": handle.spec.handle_id, "UID": handle.metadata.uid, "Revision": handle.metadata.resource_version}
        for handle in snapshot.handles
        if str(ipam_handles.KIND.key(handle)) in leaked
    ]
    return {
        "version": version,
        "clusterGUID": cluster.cluster_guid,
        "datastoreLocked": cluster.datastore_ready is False,
        "clusterInformationRevision": revision,
        "clusterType": cluster.cluster_type,
        "allocations": allocations,
        **({"leakedHandles": handles} if handles else {}),
    }


def _reported(allocation: Allocation, times: Mapping[tuple[str, str], str]) -> dict[str, object]:
    used = allocation.standing == "used"
    user = f"Node({allocation.node})" if allocation.type else f"Workload({allocation.namespace}/{allocation.pod})"
    optional = {
        "handle": allocation.handle,
        "pod": allocation.pod,
        "namespace": allocation.namespace,
        "node": allocation.node,
        "type": allocation.type,
        "creationTimestamp": times.get((allocation.block, allocation.address), ""),
        "borrowed": allocation.borrowed,
    }
    return {
        "ip": allocation.address,
        "sequenceNumber": allocation.sequence,
        **{name: value for name, value in optional.items() if value},
        # Only what is surely unused may be released by a report.
        "inUse": allocation.standing not in ("leaked", "node-gone"),
        "owners": [user] if used else [],
    }


def _timestamps(blocks: Iterable[IPAMBlock]) -> Iterator[tuple[tuple[str, str], str]]:
    """(Block, address) -> when it was given out, in the words of its attributes."""
    for block in blocks:
        spec = block.spec
        base = ipaddress.ip_network(spec.cidr, strict=False).network_address
        for ordinal, index in enumerate(spec.allocations):
            if index is not None and index < len(spec.attributes):
                attribute = msgspec.json.decode(spec.attributes[index], type=AllocationAttribute)
                yield (spec.cidr, str(base + ordinal)), attribute.secondary.get("timestamp", "")
