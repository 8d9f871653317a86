"""Pod (core v1), as far as CalIPy reads or writes it, and Calico's annotations on it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Resource, no_problems

POD_IP = "cni.projectcalico.org/podIP"
"""Written by CNI: the pod's first address as a CIDR, 10.244.1.5/32."""
POD_IPS = "cni.projectcalico.org/podIPs"
"""Written by CNI: all its addresses as CIDRs, comma separated."""
CONTAINER_ID = "cni.projectcalico.org/containerID"
IP_ADDRESSES = "cni.projectcalico.org/ipAddrs"
IPV4_POOLS = "cni.projectcalico.org/ipv4pools"
IPV6_POOLS = "cni.projectcalico.org/ipv6pools"
IP_FAMILIES = "cni.projectcalico.org/ipFamilies"
HARDWARE_ADDRESS = "cni.projectcalico.org/hwAddr"


class ContainerPort(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 ContainerPort."""

    container_port: int
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    host_port: int = 0
    host_ip: str = field(name="hostIP", default="")


class Container(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """core/v1 Container: its ports."""

    name: str = ""
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 PodSpec."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodAddress(Struct, frozen=True, gc=False, kw_only=True):
    """core/v1 PodIP."""

    ip: str


class PodStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 PodStatus."""

    phase: str = ""
    pod_ip: str = field(name="podIP", default="")
    pod_ips: tuple[PodAddress, ...] = field(name="podIPs", default=())


class Pod(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Pod"):
    """A pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
    api_version: Literal["v1"] = "v1"

    @property
    def finished(self) -> bool:
        """True when its addresses are no more its own, as Calico sees it: its containers will never run again (core/v1
        PodPhase Succeeded or Failed), or it is being deleted and CNI has taken them back (POD_IP is there, empty)."""
        if self.metadata.deletion_timestamp and self.metadata.annotations.get(POD_IP) == "":
            return True
        return self.status.phase in ("Succeeded", "Failed")


KIND = Kind(
    name="Pod", group="", version="v1", plural="pods", type=Pod, problems=no_problems, short_names=("po",),
    namespaced=True,
)  # fmt: skip
