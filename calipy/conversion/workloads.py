"""Workloads as selectors and policies see them: their labels, the profiles that they belong to, their addresses and
named ports (calico.md 1.2, 1.5)."""

from __future__ import annotations

from collections.abc import Mapping

from calipy.conversion.pods import pod_addresses
from calipy.model.endpoints import WorkloadEndpoint
from calipy.model.selectables import NamedPort, Selectable
from calipy.resources.namespaces import Namespace
from calipy.resources.pods import Pod
from calipy.resources.policy_rules import PROTOCOL_NUMBERS
from calipy.resources.service_accounts import ServiceAccount

NAMESPACE = "projectcalico.org/namespace"
ORCHESTRATOR = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX = "pcns."
"""Before the labels of its Namespace, among those that a workload inherits."""
ACCOUNT_PREFIX = "pcsa."
"""Before those of its ServiceAccount."""
NAME = "projectcalico.org/name"
"""Each Namespace and each ServiceAccount has it among its labels, whether its object is there or not."""
NAMESPACE_PROFILES = "kns."
ACCOUNT_PROFILES = "ksa."
DEFAULT_ALLOW = "projectcalico-default-allow"
"""The profile of what belongs to no namespace."""
_MOST_ACCOUNT = 62
"""Characters of a service account's name, for it to be a label too: Calico's own bound."""


def pod(found: Pod) -> Selectable:
    """A pod of another node. It has no addresses where it is finished, on its host's network, or has none yet."""
    namespace, account = found.metadata.namespace, found.spec.service_account_name
    return Selectable(
        labels=labels(found.metadata.labels, "k8s", namespace, account),
        profiles=profiles("k8s", namespace, account),
        nets=pod_addresses(found) if found.spec.node_name else (),
        ports=named_ports(found),
    )


def endpoint(found: WorkloadEndpoint, *, finished: bool) -> Selectable:
    """A workload of this node: its addresses are what CNI has given it, and its own until it has finished."""
    orchestrator, namespace, account = found.id.orchestrator, found.namespace, found.service_account
    return Selectable(
        labels=labels(found.labels, orchestrator, namespace, account),
        profiles=profiles(orchestrator, namespace, account),
        nets=() if finished else found.addresses,
        ports=found.ports,
    )


def labels(own: Mapping[str, str], orchestrator: str, namespace: str, service_account: str) -> dict[str, str]:
    """A workload's own labels and those that Calico puts on."""
    found = {**own, ORCHESTRATOR: orchestrator}
    if namespace:
        found[NAMESPACE] = namespace
    if 0 < len(service_account) <= _MOST_ACCOUNT:
        found[SERVICE_ACCOUNT] = service_account
    return found


def profiles(orchestrator: str, namespace: str, service_account: str) -> tuple[str, ...]:
    """A workload's profiles."""
    if orchestrator != "k8s":
        return (DEFAULT_ALLOW,)
    found = namespace_profile(namespace)
    return (found, account_profile(namespace, service_account)) if service_account else (found,)


def namespace_profile(namespace: str) -> str:
    """The profile that a Namespace stands for."""
    return f"{NAMESPACE_PROFILES}{namespace}"


def account_profile(namespace: str, name: str) -> str:
    """The profile that a ServiceAccount stands for."""
    return f"{ACCOUNT_PROFILES}{namespace}.{name}"


def namespace_labels(name: str, found: Namespace | None) -> dict[str, str]:
    """What workloads, and network sets, of a namespace inherit from it."""
    own = found.metadata.labels if found else {}
    return {**{NAMESPACE_PREFIX + label: value for label, value in own.items()}, NAMESPACE_PREFIX + NAME: name}


def account_labels(name: str, found: ServiceAccount | None) -> dict[str, str]:
    """What workloads inherit from their service account."""
    own = found.metadata.labels if found else {}
    return {**{ACCOUNT_PREFIX + label: value for label, value in own.items()}, ACCOUNT_PREFIX + NAME: name}


def named_ports(found: Pod) -> tuple[NamedPort, ...]:
    """The ports of its containers, init containers too, that have names."""
    containers = (*found.spec.containers, *found.spec.init_containers)
    return tuple(
        NamedPort(port.name, PROTOCOL_NUMBERS[port.protocol], port.container_port)
        for container in containers
        for port in container.ports
        if port.name
    )
