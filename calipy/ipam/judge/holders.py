"""Allocations against pods and nodes: is each address where it should be, and nowhere else. Pure."""

from __future__ import annotations

from collections import defaultdict

from msgspec import Struct, structs

from calipy.conversion.pods import pod_addresses
from calipy.ipam.blocks import SYSTEM_HANDLE, handle_of
from calipy.ipam.claims import block_of, pool_of
from calipy.ipam.judge.values import Allocation, Standing
from calipy.ipam.judge.worlds import BlockView, Entry, Findings, World
from calipy.resources import nodes
from calipy.resources.ipam_blocks import name_of as block_name
from calipy.resources.metadata import Key
from calipy.resources.pods import Pod

_TUNNEL_NOTES = {
    "ipipTunnelAddress": nodes.IPIP_ADDRESS,
    "vxlanTunnelAddress": nodes.VXLAN_ADDRESS,
    "vxlanV6TunnelAddress": nodes.VXLAN_V6_ADDRESS,
}


class User(Struct, frozen=True, gc=False):
    """A pod or node that has an address on itself, by what it shows."""

    key: Key
    address: str
    going: bool = False
    """True if its release may have begun."""


def look(world: World, findings: Findings) -> tuple[Allocation, ...]:
    """All allocations with their standing; puts what is wrong with them and their users into `findings`."""
    found: dict[str, list[Allocation]] = defaultdict(list)
    ordered: list[Allocation] = []
    for view in world.blocks:
        for entry in view.held:
            allocation = _stood(world, _allocation(view, entry))
            ordered.append(allocation)
            found[allocation.address].append(allocation)
            _report(world, allocation, findings)
    for address, several in found.items():
        if len(several) > 1:
            keys = [_key(allocation) for allocation in several]
            words = f"{address} is allocated in blocks {' and '.join(a.block for a in several)}"
            remedy = "release it in one of them, and empty the block whose size isn't its pool's blockSize"
            findings.add("held-twice", "error", keys, words, remedy, address)
    _users(world, found, findings)
    return tuple(ordered)


def _allocation(view: BlockView, entry: Entry) -> Allocation:
    assert entry.attribute is not None
    said = entry.attribute.secondary
    node = said.get("node", "")
    return Allocation(
        address=entry.address,
        block=view.cidr,
        pool=view.pool.metadata.name if view.pool else "",
        handle=handle_of(entry.attribute) or "",
        sequence=view.block.spec.sequence_number_for_allocation.get(str(entry.ordinal), 0),
        node=node,
        namespace=said.get("namespace", ""),
        pod=said.get("pod", ""),
        type=said.get("type", ""),
        borrowed=bool(node) and view.owner != node,
    )


def _stood(world: World, allocation: Allocation) -> Allocation:
    standing, reason = _standing(world, allocation)
    return structs.replace(allocation, standing=standing, reason=reason)


def _standing(world: World, allocation: Allocation) -> tuple[Standing, str]:
    gone = bool(allocation.node) and allocation.node not in world.nodes
    if allocation.handle.lower() == SYSTEM_HANDLE:
        return "unknowable", "it is set aside for Windows"
    if allocation.type:
        return _tunnel_standing(world, allocation, gone=gone)
    if not (allocation.pod and allocation.namespace):
        return ("node-gone", f"node {allocation.node} is gone") if gone else ("unknowable", "it names no pod")
    standing, reason = _pod_standing(world, allocation)
    if gone and standing != "used":
        return "node-gone", f"node {allocation.node} is gone, and {reason}"
    return standing, reason


def _tunnel_standing(world: World, allocation: Allocation, *, gone: bool) -> tuple[Standing, str]:
    if gone:
        return "node-gone", f"node {allocation.node} is gone"
    node = world.nodes.get(allocation.node)
    note = _TUNNEL_NOTES.get(allocation.type)
    if node is None or note is None:
        return "unknowable", "nothing in the store shows whether it is in use"
    shown = node.metadata.annotations.get(note, "")
    if shown == allocation.address:
        return "used", ""
    return "unknowable", f"node {allocation.node} shows {shown or 'no such address'} for it"


def _pod_standing(world: World, allocation: Allocation) -> tuple[Standing, str]:
    name = f"pod {allocation.namespace}/{allocation.pod}"
    pod = world.pods.get((allocation.namespace, allocation.pod))
    if pod is None:
        return "leaked", f"{name} does not exist"
    if pod.finished:
        return "leaked", f"{name} has finished"
    if pod.spec.host_network:
        return "leaked", f"{name} is on its host's network"
    if pod.spec.node_name and allocation.node and pod.spec.node_name != allocation.node:
        return "leaked", f"{name} is on node {pod.spec.node_name}, not {allocation.node}"
    shown = pod_addresses(pod)
    if allocation.address in shown:
        return "used", ""
    if not shown:
        return "starting", f"{name} has no address yet"
    return "leaked", f"{name} has {', '.join(shown)} instead"


def _report(world: World, allocation: Allocation, findings: Findings) -> None:
    address, reason = allocation.address, allocation.reason
    keys = [_key(allocation)]
    if allocation.pod:
        keys.append(Key("Pod", allocation.pod, allocation.namespace))
    release = f"release it: `pycalicoctl ipam release --ip {address}`; the controllers do so by themselves"
    if allocation.standing == "leaked":
        words = f"{address} (handle {allocation.handle or 'none'}) is allocated, but {reason}"
        findings.add("leaked", "warning", keys, words, release, address)
    elif allocation.standing == "starting":
        remedy = "nothing while the pod is being attached; what stays so is a leak"
        findings.add("starting", "note", keys, f"{address} is allocated, but {reason}", remedy, address)
    elif allocation.standing == "node-gone" and allocation.type:
        words = f"{address} is the {allocation.type} of node {allocation.node}, which does not exist"
        findings.add("tunnel-of-gone-node", "warning", keys, words, release, address)
    elif allocation.standing == "node-gone":
        words = f"{address} (handle {allocation.handle or 'none'}) is allocated, but {reason}"
        findings.add("leaked", "warning", [*keys, Key("Node", allocation.node)], words, release, address)
    elif allocation.type in _TUNNEL_NOTES and reason:
        words = f"{address} is held as {allocation.type} of node {allocation.node}, but {reason}"
        remedy = f"restart the agent on {allocation.node}: it uses this one, or gives it back"
        findings.add("tunnel-unused", "warning", [*keys, Key("Node", allocation.node)], words, remedy, address)


def _users(world: World, found: dict[str, list[Allocation]], findings: Findings) -> None:
    """Pods and nodes by their own word."""
    by_address: dict[str, list[User]] = defaultdict(list)
    for user in [*_pod_users(world), *_node_users(world)]:
        by_address[user.address].append(user)
    cooling = {entry.address for view in world.blocks for entry in view.cooling}
    for address, users in sorted(by_address.items()):
        if len(users) > 1:
            names = " and ".join(str(user.key) for user in users)
            words = f"{address} is used by {names}"
            remedy = "delete all but one of them (a pod made anew gets another address)"
            findings.add("held-twice", "error", [user.key for user in users], words, remedy, address)
        for user in users:
            if address in found:
                _other(user, found[address], findings)
            elif not user.going:
                _unallocated(world, user, findings, cools=address in cooling)


def _pod_users(world: World) -> list[User]:
    return [
        User(_pod_key(pod), address, going=pod.metadata.deletion_timestamp is not None)
        for pod in world.snapshot.pods
        for address in pod_addresses(pod)
    ]


def _node_users(world: World) -> list[User]:
    return [
        User(Key("Node", name), node.metadata.annotations[note])
        for name, node in world.nodes.items()
        for note in _TUNNEL_NOTES.values()
        if node.metadata.annotations.get(note)
    ]


def _other(user: User, allocations: list[Allocation], findings: Findings) -> None:
    """Somebody uses what was given to somebody else."""
    for allocation in allocations:
        if allocation.standing == "unknowable" and not (allocation.pod or allocation.type):
            return
        holder = Key("Pod", allocation.pod, allocation.namespace) if allocation.pod else Key("Node", allocation.node)
        if holder == user.key:
            return
    words = f"{user.address} is used by {user.key}, but allocated to {holder}"
    remedy = f"delete {user.key} (a pod made anew gets another address), or restart its node's agent"
    findings.add("held-by-other", "error", [user.key, *map(_key, allocations)], words, remedy, user.address)


def _unallocated(world: World, user: User, findings: Findings, *, cools: bool) -> None:
    address = user.address
    width = 128 if ":" in address else 32
    pool = pool_of(world.pools, f"{address}/{width}")
    if pool is None:
        words = f"{address} of {user.key} lies in no pool"
        remedy = "make a pool that covers it, or delete the pod: it has neither NAT nor encapsulation"
        findings.add("pod-outside-pools", "warning", [user.key], words, remedy, address)
        return
    state = "cooling down after its release" if cools else "free"
    block = Key("IPAMBlock", block_name(block_of(pool, address)))
    words = f"{address} is used by {user.key}, but {state} in pool {pool.metadata.name}: the next pod may get it too"
    remedy = f"delete {user.key}: made anew it gets an address that is its own"
    findings.add("not-allocated", "error", [user.key, block], words, remedy, address)


def _pod_key(pod: Pod) -> Key:
    return Key("Pod", pod.metadata.name, pod.metadata.namespace)


def _key(allocation: Allocation) -> Key:
    return Key("IPAMBlock", block_name(allocation.block))
