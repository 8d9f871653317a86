"""The judge, by a table of small worlds: each differs from a sound one by a few lines, and shows certain findings.

A world is written in lines:

    node NAME [annotation=value]...            pod NAMESPACE/NAME NODE ADDRESS[,ADDRESS] [finished|going|host]
    pool NAME CIDR BLOCKSIZE [disabled]        reserve CIDR
    block CIDR OWNER [ORDINAL=HANDLE:HOLDER]... [free=ORDINALS] [size=N] [attribute ORDINAL=INDEX] [deleted]
    claim NODE CIDR STATE [named NAME] [unlabelled] [old] [deleted]
    handle ID [CIDR:COUNT]... [named NAME] [deleted]
    cooldown SECONDS                           moving KIND/NAME

HOLDER is NAMESPACE/POD@NODE, TYPE@NODE for a tunnel, `-` for nobody, or `cooling` (with the release's age in seconds:
`cooling30`). OWNER is a node or `-`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import msgspec
import pytest
from msgspec import Raw, structs

from calipy.ipam.blocks import rfc3339
from calipy.ipam.claims import owner_of
from calipy.ipam.judge import judge
from calipy.ipam.judge.values import Allocation, Finding, Snapshot, Verdict
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec, labels_of
from calipy.resources.block_affinities import name_of as affinity_name
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.ip_reservations import IPReservation, IPReservationSpec
from calipy.resources.ipam_blocks import AllocationAttribute, IPAMBlock, IPAMBlockSpec
from calipy.resources.ipam_blocks import name_of as block_name
from calipy.resources.ipam_configurations import IPAMConfiguration, IPAMConfigurationSpec
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import Key, ObjectMeta, Resource
from calipy.resources.nodes import Node
from calipy.resources.pods import POD_IPS, Pod, PodSpec, PodStatus

NOW = 1_800_000_000.0
VXLAN = "projectcalico.org/IPv4VXLANTunnelAddr"

SOUND = f"""
node n1 {VXLAN}=10.0.0.3
node n2
pool default 10.0.0.0/24 30
block 10.0.0.0/30 n1 1=k8s.a:default/a@n1 2=k8s.b:default/b@n2 3=vxlan-tunnel-addr-n1:vxlanTunnelAddress@n1
block 10.0.0.4/30 n2 0=k8s.old:cooling5
claim n1 10.0.0.0/30 confirmed
claim n2 10.0.0.4/30 confirmed
handle k8s.a 10.0.0.0/30:1
handle k8s.b 10.0.0.0/30:1
handle vxlan-tunnel-addr-n1 10.0.0.0/30:1
pod default/a n1 10.0.0.1
pod default/b n2 10.0.0.2
cooldown 30
"""
B1, B2 = "IPAMBlock/10-0-0-0-30", "IPAMBlock/10-0-0-4-30"
CLAIM1, CLAIM2 = "BlockAffinity/n1-10-0-0-0-30", "BlockAffinity/n2-10-0-0-4-30"
BLOCK1 = "block 10.0.0.0/30 n1 1=k8s.a:default/a@n1 2=k8s.b:default/b@n2"

# A line replaces the lines that begin with the same two words; `-` before two words takes those lines away.
CASES: list[tuple[str, str, list[str]]] = [
    ("all is well", "", []),
    # --- addresses and their holders ---
    ("a pod is gone: its address is leaked", "- pod default/a", [f"warning leaked {B1} 10.0.0.1"]),
    ("a pod has other addresses", "pod default/a n1 10.0.0.9", [
        f"warning leaked {B1} 10.0.0.1", "error not-allocated Pod/default/a 10.0.0.9"]),
    ("a pod runs on another node than its address says", "pod default/a n2 10.0.0.1", [
        f"warning leaked {B1} 10.0.0.1"]),
    ("a pod has finished", "pod default/a n1 10.0.0.1 finished", [f"warning leaked {B1} 10.0.0.1"]),
    ("a pod is on its host's network", "pod default/a n1 10.0.0.1 host", [f"warning leaked {B1} 10.0.0.1"]),
    ("a pod that is being attached shows no address yet", "pod default/a n1 -", [f"note starting {B1} 10.0.0.1"]),
    ("two pods use one address", "pod default/b n2 10.0.0.1", [
        "error held-twice Pod/default/a 10.0.0.1", "error held-by-other Pod/default/b 10.0.0.1",
        f"warning leaked {B1} 10.0.0.2"]),
    ("a pod uses a tunnel's address", "pod default/c n1 10.0.0.3", [
        "error held-twice Pod/default/c 10.0.0.3", "error held-by-other Pod/default/c 10.0.0.3"]),
    ("a pod uses an address that is free", "pod default/c n1 10.0.0.5", [
        "error not-allocated Pod/default/c 10.0.0.5"]),
    ("a pod uses an address that cools down", "pod default/c n1 10.0.0.4", [
        "error not-allocated Pod/default/c 10.0.0.4"]),
    ("a pod that is being deleted has had its address released", "pod default/c n1 10.0.0.5 going", []),
    ("a pod's address lies in no pool", "pod default/c n1 192.0.2.1", [
        "warning pod-outside-pools Pod/default/c 192.0.2.1"]),
    ("a node's tunnel address isn't allocated", f"node n2 {VXLAN}=10.0.0.6", [
        "error not-allocated Node/n2 10.0.0.6"]),
    ("a node shows another tunnel address", f"node n1 {VXLAN}=10.0.0.7", [
        "error not-allocated Node/n1 10.0.0.7", f"warning tunnel-unused {B1} 10.0.0.3"]),
    ("a node is gone with all that was on it", "- node n1\n- pod default/a", [
        f"warning leaked {B1} 10.0.0.1", f"warning tunnel-of-gone-node {B1} 10.0.0.3",
        f"warning node-gone {CLAIM1} 10.0.0.0/30"]),
    ("a container without a pod can't be judged", "block 10.0.0.4/30 n2 1=podman.x:-\nhandle podman.x 10.0.0.4/30:1",
        []),
    ("blocks of two sizes overlap and both give an address out",
        "block 10.0.0.0/29 n1 1=k8s.a:default/a@n1\n+claim n1 10.0.0.0/29 confirmed\n"
        "handle k8s.a 10.0.0.0/30:1 10.0.0.0/29:1", [
        "error held-twice IPAMBlock/10-0-0-0-29 10.0.0.1", "warning size-differs IPAMBlock/10-0-0-0-29 10.0.0.0/29",
        f"error overlap {B1} 10.0.0.0/30", f"error overlap {B2} 10.0.0.4/30"]),
    ("a block lies outside of every pool", "pool default 10.0.0.4/30 30", [
        f"warning outside-pools {B1} 10.0.0.0/30"]),
    # --- handles ---
    ("a handle is gone", "- handle k8s.a", ["error allocation-without-handle IPAMHandle/k8s.a"]),
    ("a handle is marked as deleted", "handle k8s.a 10.0.0.0/30:1 deleted", [
        "note half-deleted IPAMHandle/k8s.a", "error allocation-without-handle IPAMHandle/k8s.a"]),
    ("a handle has no address left", "handle k8s.x 10.0.0.0/30:1", ["warning handle-without-allocation IPAMHandle/k8s.x"
        ]),
    ("a handle counts too few", "handle k8s.a", ["error counter-low IPAMHandle/k8s.a 10.0.0.0/30"]),
    ("a handle counts too many, as after a crash", "handle k8s.a 10.0.0.0/30:2", [
        "note counter-high IPAMHandle/k8s.a 10.0.0.0/30"]),
    ("a handle lies under a wrong name", "handle k8s.a 10.0.0.0/30:1 named k8s.z", [
        "error misnamed IPAMHandle/k8s.z", "error allocation-without-handle IPAMHandle/k8s.a",
        "warning handle-without-allocation IPAMHandle/k8s.z"]),
    # --- owners of blocks ---
    ("a block without its claim", "- claim n2", [f"error block-without-affinity {B2} 10.0.0.4/30"]),
    ("a claim without its block", "- block 10.0.0.4/30", [f"warning affinity-without-block {CLAIM2} 10.0.0.4/30"]),
    ("a confirmed claim on a block of another node", "claim n2 10.0.0.0/30 confirmed", [
        "error owner-differs BlockAffinity/n2-10-0-0-0-30 10.0.0.0/30",
        f"error block-without-affinity {B2} 10.0.0.4/30"]),
    ("a pending claim that lost the race", "claim n2 10.0.0.0/30 pending\n+claim n2 10.0.0.4/30 confirmed", [
        "note owner-differs BlockAffinity/n2-10-0-0-0-30 10.0.0.0/30"]),
    ("a claim in the making", "claim n2 10.0.0.4/30 pending", [f"note claim-unfinished {CLAIM2} 10.0.0.4/30"]),
    ("a claim that was left half-made", "claim n2 10.0.0.4/30 pending old", [
        f"warning claim-unfinished {CLAIM2} 10.0.0.4/30"]),
    ("a claim that is being given up while pods are on it", "claim n1 10.0.0.0/30 pendingDeletion", [
        f"warning claim-unfinished {CLAIM1} 10.0.0.0/30"]),
    ("a claim of an old version, without state", "claim n1 10.0.0.0/30 -", []),
    ("a claim without labels", "claim n1 10.0.0.0/30 confirmed unlabelled", [
        f"warning labels-missing {CLAIM1} 10.0.0.0/30"]),
    ("a claim that is marked as deleted", "claim n2 10.0.0.4/30 confirmed deleted", [
        f"note half-deleted {CLAIM2} 10.0.0.4/30", f"error block-without-affinity {B2} 10.0.0.4/30"]),
    ("a claim under a wrong name", "claim n2 10.0.0.4/30 confirmed named n2-block", [
        "error misnamed BlockAffinity/n2-block 10.0.0.4/30"]),
    ("nobody's block with addresses", f"{BLOCK1.replace(' n1 ', ' - ', 1)}\n- claim n1\n- handle vxlan-tunnel-addr-n1\n"
        "node n1", [f"note orphan {B1} 10.0.0.0/30"]),
    ("nobody's block, empty", "block 10.0.0.4/30 -\n- claim n2", [f"warning orphan-empty {B2} 10.0.0.4/30"]),
    ("a block that is marked as deleted", "block 10.0.0.4/30 n2 deleted\n- claim n2", [
        f"note half-deleted {B2} 10.0.0.4/30"]),
    # --- blocks by themselves ---
    ("an ordinal is free twice", "block 10.0.0.4/30 n2 free=0,1,1,2,3", [f"error lists-disagree {B2} 10.0.0.4/30"]),
    ("an ordinal is free and allocated", f"{BLOCK1} free=0,1,3\n- handle vxlan-tunnel-addr-n1\nnode n1", [
        f"error lists-disagree {B1} 10.0.0.0/30"]),
    ("an ordinal is neither", "block 10.0.0.4/30 n2 free=0,1,2", [f"error lists-disagree {B2} 10.0.0.4/30"]),
    ("an ordinal lies outside", "block 10.0.0.4/30 n2 free=0,1,2,3,4", [f"error lists-disagree {B2} 10.0.0.4/30"]),
    ("allocations are too short", "block 10.0.0.4/30 n2 size=3", [f"error lists-disagree {B2} 10.0.0.4/30"]),
    ("an attribute isn't there", "block 10.0.0.4/30 n2 attribute 1=7 free=0,2,3", [
        f"error attribute-missing {B2} 10.0.0.5"]),
    ("a reserved address is allocated", "reserve 10.0.0.1/32", [f"note reserved-allocated {B1} 10.0.0.1"]),
    ("an address has cooled down", "cooldown 5", [f"note cooled-down {B2} 10.0.0.4/30"]),
    # --- settings ---
    ("pools overlap", "+pool other 10.0.0.0/16 30", ["error pools-overlap IPPool/other"]),
    ("a pool isn't masked", "+pool other 10.1.0.1/16 30", ["error refused IPPool/other"]),
    ("a reservation is no CIDR", "reserve 10.0.0.x", ["error refused IPReservation/reserved"]),
    # --- a store that moves on ---
    ("what changed while it was read isn't judged", "- handle k8s.a\nmoving IPAMHandle/k8s.a", []),
    ("a pod that changed meanwhile isn't judged", "- pod default/a\nmoving Pod/default/a", []),
]  # fmt: skip


def world(changes: str) -> Snapshot:
    lines = [line for line in SOUND.splitlines() if line]
    for change in filter(None, changes.splitlines()):
        if change.startswith("+"):
            lines.append(change[1:])
            continue
        start = change.removeprefix("- ").split()[:2]
        lines = [line for line in lines if line.split()[:2] != start]
        if change.split()[0] == "cooldown":
            lines = [line for line in lines if not line.startswith("cooldown")]
        if not change.startswith("- "):
            lines.append(change)
    return snapshot(lines)


def snapshot(lines: Iterable[str]) -> Snapshot:
    made: dict[str, list[Resource]] = {kind: [] for kind in MAKERS}
    cooldown, moving = 0, []
    for line in lines:
        kind, *words = line.split()
        if kind == "cooldown":
            cooldown = int(words[0])
        elif kind == "moving":
            moving.append(key(words[0]))
        else:
            made[kind].append(MAKERS[kind](words))
    fields = {FIELDS[kind]: tuple(values) for kind, values in made.items()}
    spec = IPAMConfigurationSpec(ip_cooldown_seconds=cooldown)
    configuration = IPAMConfiguration(metadata=ObjectMeta(name="default"), spec=spec)
    return Snapshot(revision=7, moving=frozenset(moving), configuration=configuration, **fields)  # type: ignore[arg-type]


def key(text: str) -> Key:
    kind, *namespace, name = text.split("/")
    return Key(kind, name, namespace[0] if namespace else "")


def node(words: list[str]) -> Node:
    return Node(metadata=ObjectMeta(name=words[0], annotations=dict(w.split("=") for w in words[1:])))


def pod(words: list[str]) -> Pod:
    namespace, name = words[0].split("/")
    meta = ObjectMeta(namespace=namespace, name=name, deletion_timestamp=rfc3339(NOW) if "going" in words else None)
    addresses = [f"{a}/32" for a in words[2].split(",") if a != "-"]
    if addresses:
        meta = structs.replace(meta, annotations={POD_IPS: ",".join(addresses)})
    spec = PodSpec(node_name=words[1], host_network="host" in words)
    return Pod(metadata=meta, spec=spec, status=PodStatus(phase="Succeeded" if "finished" in words else "Running"))


def pool(words: list[str]) -> IPPool:
    spec = IPPoolSpec(cidr=words[1], block_size=int(words[2]), disabled="disabled" in words)
    return IPPool(metadata=ObjectMeta(name=words[0]), spec=spec)


def reservation(words: list[str]) -> IPReservation:
    return IPReservation(metadata=ObjectMeta(name="reserved"), spec=IPReservationSpec(reserved_cidrs=(words[0],)))


def block(words: list[str]) -> IPAMBlock:
    cidr, owner, *rest = words
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    size = int(options.pop("size", ipaddress.ip_network(cidr).num_addresses))
    free = options.pop("free", "")
    allocations: list[int | None] = [None] * size
    attributes: list[Raw] = []
    for ordinal, text in options.items():
        if ":" not in text:
            allocations[int(ordinal)] = int(text)
            continue
        allocations[int(ordinal)] = len(attributes)
        attributes.append(Raw(msgspec.json.encode(attribute(*text.split(":")))))
    unallocated = [int(o) for o in free.split(",")] if free else [o for o, i in enumerate(allocations) if i is None]
    spec = IPAMBlockSpec(
        cidr=cidr,
        affinity=None if owner == "-" else owner_of(owner),
        allocations=tuple(allocations),
        unallocated=tuple(unallocated),
        attributes=tuple(attributes),
        deleted="deleted" in words,
    )
    return IPAMBlock(metadata=ObjectMeta(name=block_name(cidr)), spec=spec)


def attribute(handle: str, holder: str) -> AllocationAttribute:
    if holder.startswith("cooling"):
        return AllocationAttribute(released_at=rfc3339(NOW - int(holder.removeprefix("cooling"))))
    what, _, where = holder.partition("@")
    said = {"node": where} if where else {}
    if "/" in what:
        said |= dict(zip(("namespace", "pod"), what.split("/"), strict=True))
    elif what != "-":
        said["type"] = what
    return AllocationAttribute(handle_id=handle, secondary=said)


def claim(words: list[str]) -> BlockAffinity:
    name, cidr, state, *rest = words
    meta = ObjectMeta(
        name=rest[rest.index("named") + 1] if "named" in rest else affinity_name(name, cidr),
        creation_timestamp=rfc3339(NOW - (100 if "old" in rest else 1)),
        labels={} if "unlabelled" in rest else labels_of(name, cidr),
    )
    state = "" if state == "-" else state
    spec = BlockAffinitySpec(cidr=cidr, node=name, state=state, deleted="deleted" in rest)  # type: ignore[arg-type]
    return BlockAffinity(metadata=meta, spec=spec)


def handle(words: list[str]) -> IPAMHandle:
    name = words[words.index("named") + 1] if "named" in words else words[0]
    counts = {word.rpartition(":")[0]: int(word.rpartition(":")[2]) for word in words if ":" in word}
    spec = IPAMHandleSpec(handle_id=words[0], block=counts, deleted="deleted" in words)
    return IPAMHandle(metadata=ObjectMeta(name=name), spec=spec)


MAKERS: dict[str, Callable[[list[str]], Resource]] = {
    "node": node, "pod": pod, "pool": pool, "reserve": reservation, "block": block, "claim": claim, "handle": handle,
}  # fmt: skip
FIELDS = {
    "node": "nodes", "pod": "pods", "pool": "pools", "reserve": "reservations", "block": "blocks",
    "claim": "affinities", "handle": "handles",
}  # fmt: skip


def judged(changes: str) -> Verdict:
    return judge(world(changes), NOW)


def shown(finding: Finding) -> str:
    return f"{finding.severity} {finding.what} {finding.object} {finding.address}".strip()


def allocation(verdict: Verdict, address: str) -> Allocation:
    (found,) = (allocation for allocation in verdict.allocations if allocation.address == address)
    return found


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_world_shows_its_findings_and_no_others(changes: str, expected: list[str]) -> None:
    assert sorted(map(shown, judged(changes).findings)) == sorted(expected)


def test_every_finding_names_reason_and_remedy_and_what_it_is_about() -> None:
    for _, changes, _ in CASES:
        for finding in judged(changes).findings:
            assert finding.words
            assert finding.remedy
            assert finding.address in finding.words
            assert str(finding) == f"{finding.severity}: {finding.object}: {finding.words}; {finding.remedy}"


def test_the_worst_comes_first() -> None:
    findings = judged("pod default/b n2 10.0.0.1\nreserve 10.0.0.1/32").findings
    assert [finding.severity for finding in findings] == ["error", "error", "warning", "note"]


def test_only_notes_leave_a_cluster_sound() -> None:
    assert judged("reserve 10.0.0.1/32").sound
    assert not judged("- pod default/a").sound


def test_an_allocation_says_what_a_collector_of_leaks_must_know() -> None:
    verdict = judged("- pod default/a\n- node n2\n- pod default/b\n- claim n2\n- block 10.0.0.4/30")
    leaked, gone = allocation(verdict, "10.0.0.1"), allocation(verdict, "10.0.0.2")
    assert (leaked.standing, leaked.reason) == ("leaked", "pod default/a does not exist")
    assert (leaked.handle, leaked.node, leaked.block, leaked.pool) == ("k8s.a", "n1", "10.0.0.0/30", "default")
    assert (gone.standing, gone.reason) == ("node-gone", "node n2 is gone, and pod default/b does not exist")
    assert gone.borrowed
    assert allocation(verdict, "10.0.0.3").standing == "used"


def test_totals_count_reserved_cooling_and_borrowed_apart() -> None:
    verdict = judged("+reserve 10.0.0.0/31")
    (pool,) = verdict.pools
    assert (pool.size, pool.reserved, pool.allocated, pool.cooling, pool.blocks, pool.borrowed) == (256, 2, 3, 1, 2, 1)
    assert pool.free == 256 - 3 - 1 - 1  # of the two reserved ones, one is allocated
    first, second = verdict.blocks
    assert (first.cidr, first.owner, first.allocated, first.cooling, first.free, first.borrowed) == (
        "10.0.0.0/30", "n1", 3, 0, 1, 1)  # fmt: skip
    assert (second.cidr, second.owner, second.allocated, second.cooling, second.free) == ("10.0.0.4/30", "n2", 0, 1, 3)


def test_both_families_are_judged_alike() -> None:
    verdict = judge(
        snapshot(
            """node n1
            pool six fd00::/64 122
            block fd00::/122 n1 5=k8s.a:default/a@n1
            claim n1 fd00::/122 confirmed
            handle k8s.a fd00::/122:1
            pod default/a n1 fd00::5
            pod default/b n1 fd00::6""".splitlines()
        ),
        NOW,
    )
    assert [shown(finding) for finding in verdict.findings] == ["error not-allocated Pod/default/b fd00::6"]
    assert verdict.pools[0].free == 2**64 - 1
