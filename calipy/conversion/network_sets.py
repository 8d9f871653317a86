"""NetworkSet and GlobalNetworkSet -> what a selector sees of them (calico.md 1.5)."""

from __future__ import annotations

from calipy.conversion.workloads import NAMESPACE, namespace_profile
from calipy.model.selectables import Selectable
from calipy.model.sets import net_member
from calipy.resources.cidrs import network_or_address
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.network_sets import NetworkSet


def network_set(found: NetworkSet | GlobalNetworkSet) -> Selectable:
    """A network set. That of a namespace inherits the namespace's labels."""
    nets = tuple(dict.fromkeys(net_member(str(network_or_address(net))) for net in found.spec.nets))
    namespace = found.metadata.namespace
    if not namespace:
        return Selectable(labels=found.metadata.labels, nets=nets)
    labels = {**found.metadata.labels, NAMESPACE: namespace}
    return Selectable(labels=labels, profiles=(namespace_profile(namespace),), nets=nets)
