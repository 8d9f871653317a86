"""NetworkSet and GlobalNetworkSet -> what a selector sees of them (calico.md 1.5)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from calipy.conversion.workloads import NAMESPACE, namespace_profile
from calipy.model.selectables import Selectable
from calipy.model.sets import net_member
from calipy.resources.cidrs import network_or_address
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.network_sets import NetworkSet


def network_set(found: NetworkSet | GlobalNetworkSet, nets: Iterable[str] | None = None) -> Selectable:
    """A network set. That of a namespace inherits the namespace's labels. `nets`: its networks, where they are made."""
    nets = tuple(dict.fromkeys(members(found.spec.nets) if nets is None else nets))
    namespace = found.metadata.namespace
    if not namespace:
        return Selectable(labels=found.metadata.labels, nets=nets)
    labels = {**found.metadata.labels, NAMESPACE: namespace}
    return Selectable(labels=labels, profiles=(namespace_profile(namespace),), nets=nets)


def members(nets: Iterable[str], known: Collection[str] = ()) -> Iterator[str]:
    """Networks as they are in a set. Those of `known` are so already: to read a hundred thousand takes a while."""
    for net in nets:
        yield net if net in known else net_member(str(network_or_address(net)))
