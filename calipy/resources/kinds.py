"""The list of kinds, and how a user may name one."""

from __future__ import annotations

from typing import Any

from calipy.resources import (
    bgp_configurations,
    bgp_filters,
    bgp_peers,
    block_affinities,
    calico_node_statuses,
    calipy_configurations,
    cluster_informations,
    config_maps,
    endpoint_slices,
    felix_configurations,
    global_network_policies,
    global_network_sets,
    host_endpoints,
    ip_pools,
    ip_reservations,
    ipam_blocks,
    ipam_configurations,
    ipam_handles,
    kube_controllers_configurations,
    kubernetes_network_policies,
    namespaces,
    network_policies,
    network_sets,
    node_reports,
    nodes,
    pods,
    profiles,
    secrets,
    service_accounts,
    services,
    staged_global_network_policies,
    staged_kubernetes_network_policies,
    staged_network_policies,
    tiers,
)
from calipy.resources.metadata import Kind

ALL: tuple[Kind[Any], ...] = (
    nodes.KIND,
    namespaces.KIND,
    pods.KIND,
    secrets.KIND,
    config_maps.KIND,
    service_accounts.KIND,
    services.KIND,
    endpoint_slices.KIND,
    ip_pools.KIND,
    ipam_blocks.KIND,
    block_affinities.KIND,
    ipam_handles.KIND,
    ipam_configurations.KIND,
    ip_reservations.KIND,
    felix_configurations.KIND,
    bgp_configurations.KIND,
    bgp_peers.KIND,
    bgp_filters.KIND,
    cluster_informations.KIND,
    tiers.KIND,
    network_policies.KIND,
    global_network_policies.KIND,
    kubernetes_network_policies.KIND,
    network_sets.KIND,
    global_network_sets.KIND,
    profiles.KIND,
    host_endpoints.KIND,
    staged_network_policies.KIND,
    staged_global_network_policies.KIND,
    staged_kubernetes_network_policies.KIND,
    calico_node_statuses.KIND,
    kube_controllers_configurations.KIND,
    node_reports.KIND,
    calipy_configurations.KIND,
)
BY_NAME = {kind.name: kind for kind in ALL}


def named(text: str) -> Kind[Any]:
    """The kind that a user means by `text`: its name, its plural, a short name, in any case; or, as kubectl's users
    write it, with its group behind a dot: there what the API calls it counts too. Raises KeyError."""
    wanted, dot, group = text.lower().partition(".")
    for kind in ALL:
        names = {kind.name.lower(), kind.plural, *kind.short_names}
        if dot:
            names |= {kind.kind.lower(), kind.resource}
        if wanted in names and (not dot or _is_group(kind, group)):
            return kind
    known = ", ".join(sorted(kind.plural for kind in ALL))
    raise KeyError(f"no kind is called {text!r}; known are {known}")


def _is_group(kind: Kind[Any], text: str) -> bool:
    """True for its group, also with a version or a part of Calico's storage before it: `crd.projectcalico.org`."""
    if not kind.group:
        return text.strip(".") in ("", kind.version)
    return text == kind.group or text.endswith(f".{kind.group}")


def spelled(kind: str) -> tuple[Kind[Any], ...]:
    """The kinds whose documents say `kind: ...` so; of two groups there may be two."""
    return tuple(each for each in ALL if each.kind == kind)
