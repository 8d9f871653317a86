"""The columns of each kind, calicoctl's where it has the kind, and what stands in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from calipy.console.tables import Column
from calipy.ctl.whole import Whole, typed
from calipy.resources import nodes, pods, tiers
from calipy.resources.kubernetes_network_policies import types_in_force
from calipy.resources.metadata import Kind, Refused
from calipy.resources.tiers import shown_order

Cells = tuple[tuple[str, Callable[[Any], str], bool], ...]


class Shown(Struct, frozen=True, gc=False):
    """An object to show: whole, and as its kind's struct; None where it can't be read as one."""

    value: Whole
    typed: Any


def columns_of(kind: Kind[Any], *, every_namespace: bool, default_as: int) -> Sequence[Column[Shown]]:
    """The columns of a kind; NAME alone for a kind that has no others. `default_as` is the AS number of nodes that
    have none of their own."""
    namespace = Column[Shown]("NAMESPACE", lambda shown: shown.value.metadata.namespace)
    name = Column[Shown]("NAME", lambda shown: shown.value.metadata.name)
    cells = _node_cells(default_as) if kind is nodes.KIND else _CELLS.get(kind.name, ())
    rest = [Column(title, _of_typed(cell), wide) for title, cell, wide in cells]
    return [*([namespace] if every_namespace and kind.namespaced else []), name, *rest]


def in_order(kind: Kind[Any], values: Sequence[Whole]) -> Sequence[Whole]:
    """Objects as they are shown: tiers as they are passed, others as they come."""
    return sorted(values, key=_place) if kind is tiers.KIND else values


def _place(tier: Whole) -> tuple[float, str]:
    try:
        order = typed(tiers.KIND, tier).spec.order
    except Refused:
        order = None
    return math.inf if order is None else order, tier.metadata.name


def _of_typed(cell: Callable[[Any], str]) -> Callable[[Shown], str]:
    return lambda shown: "?" if shown.typed is None else cell(shown.typed)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _or_dash(value: object) -> str:
    if isinstance(value, bool):
        return _flag(value)
    return "-" if value is None or value == "" else str(value)


def _peer_node(peer: Any) -> str:
    return peer.spec.node or peer.spec.node_selector or "(global)"


def _used(block: Any) -> str:
    allocations = block.spec.allocations
    return f"{sum(index is not None for index in allocations)}/{len(allocations)}"


def _annotation(name: str) -> Callable[[Any], str]:
    return lambda value: value.metadata.annotations.get(name, "")


def _node_cells(default_as: int) -> Cells:
    def as_number(node: Any) -> str:
        return node.metadata.annotations.get(nodes.AS_NUMBER) or f"({default_as})"

    return (
        ("ASN", as_number, True),
        ("IPV4", _annotation(nodes.IPV4_ADDRESS), True),
        ("IPV6", _annotation(nodes.IPV6_ADDRESS), True),
    )


def _pod_addresses(pod: Any) -> str:
    """Without the lengths of their prefixes: a pod's are whole addresses."""
    text = pod.metadata.annotations.get(pods.POD_IPS) or pod.metadata.annotations.get(pods.POD_IP) or ""
    found = [part.partition("/")[0] for part in text.split(",") if part] or [item.ip for item in pod.status.pod_ips]
    return ",".join(found)


def _order(found: Any) -> str:
    return _or_dash(shown_order(found.spec.order))


def _tier(policy: Any) -> str:
    return policy.spec.tier or tiers.DEFAULT


_MOST_NETS = 80
"""Characters of a list of addresses."""


def _nets(found: Any) -> str:
    text = ",".join(found.spec.nets)
    return text if len(text) <= _MOST_NETS else f"{text[: _MOST_NETS - 3]}..."


def _label_selector(policy: Any) -> str:
    """As kubectl has it: `app=web,tier in (a,b),!old`; `<none>` selects all."""
    selector = policy.spec.pod_selector
    terms = [f"{name}={value}" for name, value in selector.match_labels.items()]
    for each in selector.match_expressions:
        match each.operator:
            case "In" | "NotIn":
                terms.append(f"{each.key} {'in' if each.operator == 'In' else 'notin'} ({','.join(each.values)})")
            case "Exists":
                terms.append(each.key)
            case _:
                terms.append(f"!{each.key}")
    return ",".join(terms) or "<none>"


def _service_ports(service: Any) -> str:
    return _or_dash(",".join(f"{port.port}/{port.protocol}" for port in service.spec.ports))


def _slice_ports(found: Any) -> str:
    return _or_dash(",".join("*" if port.port is None else str(port.port) for port in found.ports or ()))


def _slice_addresses(found: Any) -> str:
    return _or_dash(",".join(address for each in found.endpoints or () for address in each.addresses))


_POLICY_CELLS: Cells = (
    ("TIER", _tier, False),
    ("ORDER", _order, True),
    ("SELECTOR", lambda policy: policy.spec.selector, True),
)

_STAGED_ACTION = ("STAGEDACTION", lambda policy: policy.spec.staged_action, True)

_CELLS: dict[str, Cells] = {
    "Tier": (("ORDER", _order, False), ("DEFAULTACTION", lambda tier: tier.spec.default_action, True)),
    "NetworkPolicy": _POLICY_CELLS,
    "GlobalNetworkPolicy": _POLICY_CELLS,
    "StagedNetworkPolicy": (*_POLICY_CELLS, _STAGED_ACTION),
    "StagedGlobalNetworkPolicy": (*_POLICY_CELLS, _STAGED_ACTION),
    "KubernetesNetworkPolicy": (
        ("PODSELECTOR", _label_selector, False),
        ("TYPES", lambda policy: ",".join(types_in_force(policy.spec)), True),
    ),
    "StagedKubernetesNetworkPolicy": (("PODSELECTOR", _label_selector, True), _STAGED_ACTION),
    "NetworkSet": (("NETS", _nets, True),),
    "GlobalNetworkSet": (("NETS", _nets, True),),
    "Profile": (("LABELS", lambda found: ",".join(f"{k}={v}" for k, v in found.spec.labels_to_apply.items()), True),),
    "Service": (
        ("TYPE", lambda service: service.spec.type, False),
        ("CLUSTERIP", lambda service: _or_dash(service.spec.cluster_ip), False),
        ("PORTS", _service_ports, False),
    ),
    "EndpointSlice": (
        ("ADDRESSTYPE", lambda found: found.address_type, False),
        ("PORTS", _slice_ports, False),
        ("ENDPOINTS", _slice_addresses, False),
    ),
    "IPPool": (
        ("CIDR", lambda pool: pool.spec.cidr, False),
        ("NAT", lambda pool: _flag(pool.spec.nat_outgoing), True),
        ("IPIPMODE", lambda pool: pool.spec.ipip_mode, True),
        ("VXLANMODE", lambda pool: pool.spec.vxlan_mode, True),
        ("DISABLED", lambda pool: _flag(pool.spec.disabled), True),
        ("DISABLEBGPEXPORT", lambda pool: _flag(pool.spec.disable_bgp_export), True),
        ("ASSIGNMENTMODE", lambda pool: pool.spec.assignment_mode, True),
        ("SELECTOR", lambda pool: pool.spec.node_selector, False),
    ),
    "BGPPeer": (
        ("PEERIP", lambda peer: peer.spec.peer_ip or peer.spec.peer_selector, False),
        ("NODE", _peer_node, False),
        ("ASN", lambda peer: str(peer.spec.as_number), False),
    ),
    "BGPFilter": (
        ("NUMEXPORT", lambda found: str(len(found.spec.export_v4) + len(found.spec.export_v6)), False),
        ("NUMIMPORT", lambda found: str(len(found.spec.import_v4) + len(found.spec.import_v6)), False),
    ),
    "HostEndpoint": (
        ("NODE", lambda found: found.spec.node, False),
        ("INTERFACE", lambda found: found.spec.interface_name, True),
        ("IPS", lambda found: ",".join(found.spec.expected_ips), True),
        ("PROFILES", lambda found: ",".join(found.spec.profiles), True),
    ),
    "CalicoNodeStatus": (
        ("NODE", lambda found: found.spec.node, False),
        ("CLASSES", lambda found: ",".join(found.spec.classes), True),
    ),
    "BGPConfiguration": (
        ("LOGSEVERITY", lambda found: _or_dash(found.spec.log_severity_screen), False),
        ("MESHENABLED", lambda found: _or_dash(found.spec.node_to_node_mesh_enabled), False),
        ("ASNUMBER", lambda found: _or_dash(found.spec.as_number), False),
    ),
    "CalipyConfiguration": (("POLICYRECHECK", lambda found: _or_dash(found.spec.policy_recheck), False),),
    "IPReservation": (("CIDRS", lambda found: ",".join(found.spec.reserved_cidrs), True),),
    "IPAMConfiguration": (
        ("STRICTAFFINITY", lambda found: _flag(found.spec.strict_affinity), False),
        ("AUTOALLOCATEBLOCKS", lambda found: _flag(found.spec.auto_allocate_blocks), False),
        ("MAXBLOCKSPERHOST", lambda found: str(found.spec.max_blocks_per_host), True),
    ),
    "ClusterInformation": (
        ("CLUSTERGUID", lambda found: found.spec.cluster_guid, False),
        ("CLUSTERTYPE", lambda found: found.spec.cluster_type, False),
        ("CALICOVERSION", lambda found: found.spec.calico_version, False),
        ("DATASTOREREADY", lambda found: _or_dash(found.spec.datastore_ready), False),
    ),
    "IPAMBlock": (
        ("CIDR", lambda block: block.spec.cidr, False),
        ("AFFINITY", lambda block: _or_dash(block.spec.affinity), False),
        ("USED", _used, False),
    ),
    "BlockAffinity": (
        ("CIDR", lambda claim: claim.spec.cidr, False),
        ("NODE", lambda claim: claim.spec.node, False),
        ("STATE", lambda claim: claim.spec.state or "confirmed", False),
    ),
    "IPAMHandle": (
        ("ADDRESSES", lambda handle: str(sum(handle.spec.block.values())), False),
        ("BLOCKS", lambda handle: ",".join(handle.spec.block), True),
    ),
    "Pod": (
        ("NODE", lambda pod: pod.spec.node_name, False),
        ("ADDRESSES", _pod_addresses, False),
        ("PHASE", lambda pod: _or_dash(pod.status.phase), False),
    ),
}
