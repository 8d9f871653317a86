"""Blocks against claims, nodes and pools: does each block lead to one living node. Pure."""

from __future__ import annotations

from calipy.ipam.claims import STEAL_AFTER_S
from calipy.ipam.judge.worlds import BlockView, Findings, World, affinity_key
from calipy.resources.block_affinities import BlockAffinity, labels_of, name_of
from calipy.resources.ipam_blocks import name_of as block_name
from calipy.resources.metadata import Key


def look(world: World, findings: Findings) -> None:
    """Puts what is wrong between blocks, claims, nodes and pools into `findings`."""
    views = {view.cidr: view for view in world.blocks}
    for view in world.blocks:
        _owner(world, view, findings)
        _place(view, findings)
    for affinity in world.snapshot.affinities:
        if affinity.spec.deleted:
            words = f"the claim of node {affinity.spec.node} on {affinity.spec.cidr} is marked as deleted, still there"
            remedy = "nothing: the node's next claim replaces it"
            findings.add("half-deleted", "note", [affinity_key(affinity)], words, remedy, affinity.spec.cidr)
            continue
        _claim(world, affinity, views.get(affinity.spec.cidr), findings)
        _marks(affinity, findings)
        _node(world, affinity, findings)
    _overlaps(world, findings)


def _owner(world: World, view: BlockView, findings: Findings) -> None:
    if view.block.spec.affinity is None:
        _orphan(view, findings)
    elif view.owner and not any(a.spec.node == view.owner for a in world.affinities.get(view.cidr, ())):
        keys = [view.key, Key("BlockAffinity", name_of(view.owner, view.cidr))]
        words = f"block {view.cidr} is node {view.owner}'s, but there is no claim of that node on it: nobody routes it"
        remedy = f"restart the agent on {view.owner}; if that node is gone, delete the block once it is empty"
        findings.add("block-without-affinity", "error", keys, words, remedy, view.cidr)


def _orphan(view: BlockView, findings: Findings) -> None:
    if view.entries:
        words = f"block {view.cidr} is nobody's; {len(view.held)} of its addresses are held, each routed by itself"
        remedy = "nothing: it is deleted when its last address is released"
        findings.add("orphan", "note", [view.key], words, remedy, view.cidr)
    else:
        words = f"block {view.cidr} is nobody's and empty"
        findings.add("orphan-empty", "warning", [view.key], words, "delete it, so that it can be claimed", view.cidr)


def _place(view: BlockView, findings: Findings) -> None:
    if view.block.metadata.name != block_name(view.cidr):
        words = f"block {view.cidr} must be called {block_name(view.cidr)}: by this name nobody finds it"
        findings.add("misnamed", "error", [view.key], words, "make it anew under the right name", view.cidr)
    if view.pool is None:
        words = f"block {view.cidr} lies in no pool; {len(view.held)} of its addresses are held"
        remedy = "make a pool that covers it, or move these pods: they have neither NAT nor encapsulation"
        findings.add("outside-pools", "warning", [view.key], words, remedy, view.cidr)
    elif view.network.prefixlen != view.pool.block_size:
        words = f"block {view.cidr} isn't of the size that pool {view.pool.metadata.name} has (/{view.pool.block_size})"
        remedy = "empty it and delete it; a pool's blockSize can't be changed, not even by making the pool anew"
        findings.add("size-differs", "warning", [view.key], words, remedy, view.cidr)


def _claim(world: World, affinity: BlockAffinity, view: BlockView | None, findings: Findings) -> None:
    spec, key = affinity.spec, affinity_key(affinity)
    block = Key("IPAMBlock", block_name(spec.cidr))
    if spec.type == "virtual":
        return
    if view is not None and view.block.spec.affinity != f"host:{spec.node}":
        owner = view.block.spec.affinity or "nobody"
        words = f"node {spec.node} claims {spec.cidr} ({spec.state or 'confirmed'}), but the block is {owner}'s"
        remedy = f"restart the agent on {spec.node}, which lets go of it; if that node is gone, delete the claim"
        findings.add("owner-differs", "error" if affinity.confirmed else "note", [key, block], words, remedy, spec.cidr)
    elif not affinity.confirmed:
        _unfinished(world, affinity, view, findings)
    elif view is None:
        words = f"node {spec.node} owns {spec.cidr}, but there is no such block"
        remedy = "nothing while the node lives: its next pod makes the block anew; else delete the claim"
        findings.add("affinity-without-block", "warning", [key, block], words, remedy, spec.cidr)


def _unfinished(world: World, affinity: BlockAffinity, view: BlockView | None, findings: Findings) -> None:
    spec = affinity.spec
    held = len(view.held) if view else 0
    stale = world.old(affinity.metadata.creation_timestamp, STEAL_AFTER_S) or held > 0
    keys = [affinity_key(affinity), Key("IPAMBlock", block_name(spec.cidr))]
    words = f"the claim of node {spec.node} on {spec.cidr} is {spec.state}"
    if held:
        words += f", so that nobody routes the block's {held} held addresses"
    remedy = f"nothing while it is new; else restart the agent on {spec.node}, or delete it if that node is gone"
    findings.add("claim-unfinished", "warning" if stale else "note", keys, words, remedy, spec.cidr)


def _marks(affinity: BlockAffinity, findings: Findings) -> None:
    spec, key = affinity.spec, affinity_key(affinity)
    wanted = labels_of(spec.node, spec.cidr, spec.type or "host")
    if affinity.metadata.name != name_of(spec.node, spec.cidr):
        words = f"the claim of node {spec.node} on {spec.cidr} must be called {name_of(spec.node, spec.cidr)}"
        findings.add("misnamed", "error", [key], words, "delete it; the node claims anew", spec.cidr)
    missing = [name for name, value in wanted.items() if affinity.metadata.labels.get(name) != value]
    if missing:
        words = f"the claim of node {spec.node} on {spec.cidr} lacks labels {', '.join(missing)}: Calico lists by them"
        findings.add("labels-missing", "warning", [key], words, f"restart the agent on {spec.node}", spec.cidr)


def _node(world: World, affinity: BlockAffinity, findings: Findings) -> None:
    spec = affinity.spec
    if spec.type != "virtual" and spec.node not in world.nodes:
        words = f"node {spec.node}, which claims {spec.cidr}, does not exist"
        remedy = "nothing where controllers run: they give its blocks up; else `pycalicoctl ipam release` its addresses"
        keys = [affinity_key(affinity), Key("Node", spec.node)]
        findings.add("node-gone", "warning", keys, words, remedy, spec.cidr)


def _overlaps(world: World, findings: Findings) -> None:
    wide: BlockView | None = None
    for view in world.blocks:
        if wide is not None and wide.network.version == view.network.version and wide.network.overlaps(view.network):
            words = f"blocks {wide.cidr} and {view.cidr} overlap: an address may be given out in both"
            remedy = "empty the one whose size isn't its pool's blockSize, and delete it"
            findings.add("overlap", "error", [view.key, wide.key], words, remedy, view.cidr)
        else:
            wide = view
