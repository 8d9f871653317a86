"""NetworkPolicy (networking.k8s.io/v1): what may reach the pods of a namespace, and what they may reach."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.cidrs import Network, network_of
from calipy.resources.label_selectors import LabelSelector, label_selector_problems
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.policy_problems import port_name_problems

PolicyType = Literal["Ingress", "Egress"]


class NetworkPolicyPort(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """networking.k8s.io/v1 NetworkPolicyPort. No port is every port of the protocol."""

    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    """TCP, UDP or SCTP. Default: TCP."""
    port: int | str | None = None
    """The port: 1 to 65535, or the name of a container's port. Left out, every port of the protocol."""
    end_port: int | None = None
    """The last port of a range that begins with port."""


class IPBlock(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Addresses in a range (networking.k8s.io/v1 IPBlock)."""

    cidr: str
    """The range: 10.0.0.0/8."""
    except_: tuple[str, ...] = field(name="except", default=())
    """Ranges in it that aren't meant."""


class NetworkPolicyPeer(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """networking.k8s.io/v1 NetworkPolicyPeer: `ip_block`, or pods by one or both selectors. A selector that is there
    and empty selects all; one that is absent asks for nothing, and without a namespace selector the policy's namespace
    is meant."""

    pod_selector: LabelSelector | None = None
    """Pods, by their labels."""
    namespace_selector: LabelSelector | None = None
    """Pods of namespaces, by the namespaces' labels."""
    ip_block: IPBlock | None = field(name="ipBlock", default=None)
    """Addresses in a range; stands alone."""


class NetworkPolicyIngressRule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """networking.k8s.io/v1 NetworkPolicyIngressRule. No peers are all peers, no ports all ports."""

    from_: tuple[NetworkPolicyPeer, ...] = field(name="from", default=())
    """Who may reach the pods. Left out, everybody."""
    ports: tuple[NetworkPolicyPort, ...] = ()
    """At which of the pods' ports. Left out, at all."""


class NetworkPolicyEgressRule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """networking.k8s.io/v1 NetworkPolicyEgressRule. No peers are all peers, no ports all ports."""

    to: tuple[NetworkPolicyPeer, ...] = ()
    """Whom the pods may reach. Left out, everybody."""
    ports: tuple[NetworkPolicyPort, ...] = ()
    """At which of their ports. Left out, at all."""


class KubernetesNetworkPolicySpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Which pods the policy governs, and what they may talk to (networking.k8s.io/v1 NetworkPolicySpec)."""

    pod_selector: LabelSelector = LabelSelector()
    """The pods that the policy governs, by their labels; {} means all of the namespace."""
    policy_types: tuple[PolicyType, ...] = ()
    """The directions that the policy governs: a governed pod is closed in them but for what rules allow. Left out:
    Ingress, and Egress if there are egress rules."""
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    """What may reach the pods: what one rule or another allows. None at all lets nothing in; one empty rule lets
    everything in."""
    egress: tuple[NetworkPolicyEgressRule, ...] = ()
    """What the pods may reach: what one rule or another allows."""


class KubernetesNetworkPolicy(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="NetworkPolicy"
):
    """Kubernetes' own policy."""

    spec: KubernetesNetworkPolicySpec = KubernetesNetworkPolicySpec()
    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"


def types_in_force(spec: KubernetesNetworkPolicySpec) -> tuple[PolicyType, ...]:
    """The directions that a policy isolates: those that it names, else ingress, and egress if it has rules for it."""
    return spec.policy_types or (("Ingress", "Egress") if spec.egress else ("Ingress",))


def problems(policy: KubernetesNetworkPolicy) -> Iterator[Problem]:
    """Kubernetes' validation of NetworkPolicy. CIDRs may have bits set behind their prefix: API servers before v1.36
    have let them in."""
    spec = policy.spec
    yield from metadata_problems(policy.metadata)
    yield from label_selector_problems("spec.podSelector", spec.pod_selector)
    for index, ingress in enumerate(spec.ingress):
        yield from _rule_problems(f"spec.ingress[{index}]", ingress.ports, "from", ingress.from_)
    for index, egress in enumerate(spec.egress):
        yield from _rule_problems(f"spec.egress[{index}]", egress.ports, "to", egress.to)
    if len(spec.policy_types) > 2:
        types = list(spec.policy_types)
        yield Problem("spec.policyTypes", types, "are too many", "name Ingress, Egress, or both")


def _rule_problems(
    field: str, ports: tuple[NetworkPolicyPort, ...], way: str, peers: tuple[NetworkPolicyPeer, ...]
) -> Iterator[Problem]:
    for index, port in enumerate(ports):
        yield from _port_problems(f"{field}.ports[{index}]", port)
    for index, peer in enumerate(peers):
        yield from _peer_problems(f"{field}.{way}[{index}]", peer)


def _port_problems(field: str, port: NetworkPolicyPort) -> Iterator[Problem]:
    last = port.end_port
    if isinstance(port.port, int):
        if not 1 <= port.port <= 65535:
            yield Problem(
                f"{field}.port", port.port, "is no port", "write 1 to 65535, or the name of a container's port"
            )
        if last is not None and not port.port <= last <= 65535:
            yield Problem(f"{field}.endPort", last, f"can't end a range from {port.port}", "write port to 65535")
        return
    if port.port is not None:
        yield from port_name_problems(f"{field}.port", port.port)
    if last is not None:
        yield Problem(f"{field}.endPort", last, "needs a port that is a number", "set port to the first of the range")


def _peer_problems(field: str, peer: NetworkPolicyPeer) -> Iterator[Problem]:
    selectors = (("podSelector", peer.pod_selector), ("namespaceSelector", peer.namespace_selector))
    given = [(name, selector) for name, selector in selectors if selector is not None]
    for name, selector in given:
        yield from label_selector_problems(f"{field}.{name}", selector)
    if peer.ip_block is not None:
        yield from _block_problems(f"{field}.ipBlock", peer.ip_block)
        if given:
            reason = f"can't be combined with {given[0][0]}"
            yield Problem(f"{field}.ipBlock", peer.ip_block.cidr, reason, "write two peers")
    elif not given:
        remedy = "write ipBlock, podSelector or namespaceSelector; {} selects all"
        yield Problem(field, {}, "names nobody", remedy)


def _block_problems(field: str, block: IPBlock) -> Iterator[Problem]:
    network = yield from _network(f"{field}.cidr", block.cidr)
    for index, text in enumerate(block.except_):
        where = f"{field}.except[{index}]"
        part = yield from _network(where, text)
        if network is not None and part is not None and not _is_part(part, network):
            yield Problem(where, text, f"is not a part of {block.cidr}", "write a smaller range inside of cidr")


def _network(field: str, text: str) -> Generator[Problem, None, Network | None]:
    try:
        return network_of(text)
    except ValueError:
        yield Problem(field, text, "is not a CIDR", "write an address and a prefix length, 10.0.0.0/8 or 2001:db8::/32")
        return None


def _is_part(part: Network, whole: Network) -> bool:
    """True if the one lies in the other and is smaller."""
    return part.prefixlen > whole.prefixlen and part.network_address in whole


KIND = Kind(
    name="KubernetesNetworkPolicy", kind="NetworkPolicy", group="networking.k8s.io", version="v1",
    plural="kubernetesnetworkpolicies", resource="networkpolicies", type=KubernetesNetworkPolicy,
    problems=problems, short_names=("knp", "knps"), namespaced=True,
)  # fmt: skip
