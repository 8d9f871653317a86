"""NetworkPolicy (networking.k8s.io/v1): what may reach the pods of a namespace, and what they may reach."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.label_selectors import LabelSelector
from calipy.resources.metadata import Kind, Resource, no_problems

PolicyType = Literal["Ingress", "Egress"]


class NetworkPolicyPort(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """networking.k8s.io/v1 NetworkPolicyPort. No port is every port of the protocol."""

    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class IPBlock(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """networking.k8s.io/v1 IPBlock."""

    cidr: str
    except_: tuple[str, ...] = field(name="except", default=())


class NetworkPolicyPeer(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """networking.k8s.io/v1 NetworkPolicyPeer: `ip_block`, or pods by one or both selectors. A selector that is there
    and empty selects all; one that is absent asks for nothing, and without a namespace selector the policy's namespace
    is meant."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = field(name="ipBlock", default=None)


class NetworkPolicyIngressRule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """networking.k8s.io/v1 NetworkPolicyIngressRule. No peers are all peers, no ports all ports."""

    from_: tuple[NetworkPolicyPeer, ...] = field(name="from", default=())
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicyEgressRule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """networking.k8s.io/v1 NetworkPolicyEgressRule. No peers are all peers, no ports all ports."""

    to: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class KubernetesNetworkPolicySpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """networking.k8s.io/v1 NetworkPolicySpec."""

    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[PolicyType, ...] = ()
    """Empty stands for what `types_in_force` says."""
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    """None at all lets nothing in; one empty rule lets everything in."""
    egress: tuple[NetworkPolicyEgressRule, ...] = ()


class KubernetesNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="NetworkPolicy"
):
    """Kubernetes' own policy."""

    spec: KubernetesNetworkPolicySpec = KubernetesNetworkPolicySpec()
    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"


KIND = Kind(
    name="KubernetesNetworkPolicy", kind="NetworkPolicy", group="networking.k8s.io", version="v1",
    plural="kubernetesnetworkpolicies", resource="networkpolicies", type=KubernetesNetworkPolicy,
    problems=no_problems, short_names=("knp", "knps"), namespaced=True,
)  # fmt: skip
