"""Workload endpoints: one network interface of one pod (or of a bare container)."""

from __future__ import annotations

from msgspec import Struct

from calipy.model.policies import TierBinding
from calipy.model.selectables import NamedPort


class EndpointId(Struct, frozen=True, gc=False, order=True):
    """Identity of a local endpoint, as Calico's WorkloadEndpoint names it on one node.

    `k8s`, `default/web`, `eth0` for a pod; `cni`, the container ID, the interface for anything else.
    """

    orchestrator: str
    workload: str
    endpoint: str

    def __str__(self) -> str:
        return f"{self.orchestrator}/{self.workload}/{self.endpoint}"


class WorkloadEndpoint(Struct, frozen=True, gc=False, kw_only=True):
    """An endpoint on this node, its two writers joined: container ID, interface and addresses come from CNI, the
    rest from the Pod, and what governs it from the calculation."""

    id: EndpointId
    container_id: str
    interface: str
    """Name of the host's end of the veth pair."""
    addresses: tuple[str, ...]
    """Its addresses without prefix length, IPv4 first."""
    namespace: str = ""
    pod: str = ""
    service_account: str = ""
    labels: dict[str, str] = {}
    ports: tuple[NamedPort, ...] = ()
    """The ports of its containers that have names."""
    mac: str = ""
    """The pod end's address where known: a permanent neighbour saves the first packet's ARP."""
    tiers: tuple[TierBinding, ...] = ()
    """The policies that govern it, tier by tier in their order; a tier without any is not here."""
    profiles: tuple[str, ...] = ()
    """Names of the profiles that decide where no tier has, in their order."""
