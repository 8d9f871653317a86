"""What becomes of a packet by the letter of the specifications, and which rule says so.

Slow, literal, and blind to how the rest of CalIPy does it: it reads resources as they are stored, makes no sets and no
chains. Its verdicts are what the compiled rules and the kernel are held against.

Sources: Kubernetes' API of NetworkPolicy (networking.k8s.io/v1); Calico's reference of NetworkPolicy,
GlobalNetworkPolicy, Tier, NetworkSet, GlobalNetworkSet and FelixConfiguration, and where it is silent what Felix does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from math import inf

from calipy.explain.inhabitants import (
    SERVICE_ACCOUNT,
    Address,
    Inhabitants,
    Thing,
    World,
    canonical,
    contains,
    named_ports,
    network_of,
    profiles,
    rewritten,
    selects,
)
from calipy.explain.verdicts import Action, Decision, Direction, Packet, Step, Verdict
from calipy.resources import tiers
from calipy.resources.endpoint_slices import EndpointSlice
from calipy.resources.felix_configurations import FelixConfiguration, Value, values
from calipy.resources.global_network_policies import GlobalNetworkPolicy
from calipy.resources.kubernetes_network_policies import (
    KubernetesNetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from calipy.resources.metadata import Key
from calipy.resources.network_policies import NetworkPolicy
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod
from calipy.resources.policy_rules import (
    PROTOCOL_NUMBERS,
    EntityRule,
    ICMPFields,
    Port,
    Rule,
    ServiceAccountMatch,
    ServiceMatch,
    port_range,
    protocol_number,
)
from calipy.resources.profiles import Profile
from calipy.resources.selectors import parse
from calipy.resources.tiers import Tier, TierSpec

_Policy = NetworkPolicy | GlobalNetworkPolicy | KubernetesNetworkPolicy
_Condition = tuple[str, bool]
"""A field of a rule, and whether what it asks for holds."""

_ACTIONS: Mapping[str, Action] = {"Allow": "allow", "Deny": "deny", "Pass": "pass", "Log": "log"}
_IPIP, _UDP = 4, 17
_ICMP = {4: 1, 6: 58}
_DISCOVERY = (*range(130, 134), 135, 136)
"""ICMPv6: multicast listeners, router solicitation, neighbour solicitation and advertisement (calico.md 3.6)."""


def evaluate(world: World, packet: Packet, process: Mapping[str, Value] | None = None) -> Verdict:
    """The packet's fate between where its source and its destination live, by Calico's names of `process` where a
    node's file or environment overrules FelixConfiguration."""
    return _Evaluation(world, packet, process or {}).verdict()


class _Evaluation:
    """One packet in one world."""

    def __init__(self, world: World, packet: Packet, process: Mapping[str, Value]) -> None:
        self._who = Inhabitants(world)
        self._packet = packet
        self._process = process
        self._source = ipaddress.ip_address(packet.source)
        self._destination = ipaddress.ip_address(packet.destination)
        self._sender, self._receiver = self._who.place(self._source), self._who.place(self._destination)
        self._steps: list[Step] = []

    def verdict(self) -> Verdict:
        """Egress where it leaves, ingress where it arrives."""
        egress = self._egress()
        ingress = self._ingress() if egress.allowed else None
        return Verdict(egress=egress, ingress=ingress, steps=tuple(self._steps))

    def _egress(self) -> Decision:
        pod = self._sender.pod
        if pod is None or pod is self._receiver.pod:
            return Decision(direction="egress", allowed=True, reason="not governed")
        if self._discovers():
            return Decision(direction="egress", allowed=True, reason="neighbour discovery")
        if self._encapsulates(self._sender.node):
            return Decision(direction="egress", allowed=False, reason="encapsulation")
        return self._judge(pod, "egress")

    def _ingress(self) -> Decision:
        sender, receiver = self._sender, self._receiver
        if receiver.pod is not None and sender.pod is not receiver.pod:
            if sender.pod is None and sender.node == receiver.node:
                return Decision(direction="ingress", allowed=True, reason="own node")
            return self._judge(receiver.pod, "ingress")
        if not self._to_own_host():
            return Decision(direction="ingress", allowed=True, reason="not governed")
        if self._discovers():
            return Decision(direction="ingress", allowed=True, reason="neighbour discovery")
        allowed = self._setting(sender.node, "defaultEndpointToHostAction", "DROP") != "DROP"
        return Decision(direction="ingress", allowed=allowed, reason="defaultEndpointToHostAction")

    def _to_own_host(self) -> bool:
        sender, receiver = self._sender, self._receiver
        return sender.pod is not None and receiver.pod is None and sender.node == receiver.node

    def _discovers(self) -> bool:
        """What a pod and its host must say to each other to find each other at all."""
        packet = self._packet
        return self._to_own_host() and packet.protocol == _ICMP[6] and packet.icmp_type in _DISCOVERY

    def _encapsulates(self, node: str) -> bool:
        """A pod's packet that could pass for a tunnel's (calico.md 3.7)."""
        packet = self._packet
        port = self._setting(node, "vxlanPort", 4789)
        if packet.protocol == _UDP and packet.destination_port == port:
            return not self._setting(node, "allowVXLANPacketsFromWorkloads", False)
        return packet.protocol == _IPIP and not self._setting(node, "allowIPIPPacketsFromWorkloads", False)

    # --- tiers, policies and rules in their order ---

    def _judge(self, pod: Pod, direction: Direction) -> Decision:
        for name, tier in self._tiers():
            governing = [policy for policy in self._policies(name) if self._governs(policy, pod, direction)]
            if not governing:
                continue
            last = self._last_step(name, tier, governing, direction)
            if last.action != "pass":
                return Decision(
                    direction=direction, allowed=last.action == "allow", tier=name, policy=last.policy, rule=last.rule
                )
        return self._by_profile(pod, direction)

    def _last_step(self, name: str, tier: TierSpec, policies: Iterable[_Policy], direction: Direction) -> Step:
        """The first rule that matches and doesn't just log, or the tier's end."""
        for policy in policies:
            for number, (action, conditions) in enumerate(self._rules(policy, direction)):
                unmet = _unmet(conditions)
                step = Step(
                    direction=direction, tier=name, policy=_name(policy), rule=number, action=action, unmet=unmet
                )
                self._steps.append(step)
                if not unmet and action != "log":
                    return step
        end = Step(direction=direction, tier=name, action="pass" if tier.default_action == "Pass" else "deny")
        self._steps.append(end)
        return end

    def _by_profile(self, pod: Pod, direction: Direction) -> Decision:
        """Those of its namespace and its service account, in this order: where they have no object of their own, the
        first allows all, the second has no rules (calico.md 1.5)."""
        for name in profiles(self._who.pod_thing(pod)):
            found = self._who.get(Profile, Key("Profile", name))
            if found is not None:
                rules = found.spec.ingress if direction == "ingress" else found.spec.egress
            else:
                rules = (Rule(action="Allow"),) if name.startswith("kns.") else ()
            for number, rule in enumerate(rules):
                action, unmet = _ACTIONS[rule.action], _unmet(self._conditions(rule, ""))
                self._steps.append(Step(direction=direction, profile=name, rule=number, action=action, unmet=unmet))
                if not unmet and action != "log":
                    allowed = action == "allow"
                    return Decision(direction=direction, allowed=allowed, rule=number, reason=f"profile {name}")
        return Decision(direction=direction, allowed=False, reason="no profile")

    def _tiers(self) -> list[tuple[str, TierSpec]]:
        """By order, then by name. The built-in ones are there without objects, and always the same; one that policies
        name and that isn't there comes last, and denies (Felix, PolicySorter)."""
        found = {tier.metadata.name: tier.spec for tier in self._who.all(Tier)}
        found.update((name, tier.spec) for name, tier in tiers.BUILT_IN.items())
        missing = {_tier(policy) for policy in self._all_policies()} - found.keys()
        known = sorted(found.items(), key=lambda item: (_order(item[1].order), item[0]))
        return [*known, *((name, TierSpec()) for name in sorted(missing))]

    def _policies(self, tier: str) -> list[_Policy]:
        """Those of a tier by order, then by `name/namespace/kind`."""
        return sorted((policy for policy in self._all_policies() if _tier(policy) == tier), key=_sequence)

    def _all_policies(self) -> Iterator[_Policy]:
        yield from self._who.all(NetworkPolicy)
        yield from self._who.all(GlobalNetworkPolicy)
        yield from self._who.all(KubernetesNetworkPolicy)

    def _governs(self, policy: _Policy, pod: Pod, direction: Direction) -> bool:
        if direction not in _directions(policy):
            return False
        if not isinstance(policy, GlobalNetworkPolicy) and policy.metadata.namespace != pod.metadata.namespace:
            return False
        thing = self._who.pod_thing(pod)
        if isinstance(policy, KubernetesNetworkPolicy):
            return selects(policy.spec.pod_selector, self._who.labels(thing))
        selector, accounts = policy.spec.selector, policy.spec.service_account_selector
        if isinstance(policy, GlobalNetworkPolicy):
            if not self._who.in_namespaces(policy.spec.namespace_selector, thing):
                return False
            # Beside a serviceAccountSelector, all() means all that have an account; in the selector, too.
            having = {"all()": f"has({SERVICE_ACCOUNT})"}
            accounts = rewritten(accounts, having)
            if accounts and not policy.spec.namespace_selector:
                selector = rewritten(selector, having)
        return self._who.matches(selector, thing) and self._who.of_accounts(accounts, thing)

    def _rules(self, policy: _Policy, direction: Direction) -> Iterator[tuple[Action, list[_Condition]]]:
        if isinstance(policy, KubernetesNetworkPolicy):
            for rule in policy.spec.ingress if direction == "ingress" else policy.spec.egress:
                yield "allow", list(self._kubernetes_conditions(policy, rule))
            return
        for each in policy.spec.ingress if direction == "ingress" else policy.spec.egress:
            yield _ACTIONS[each.action], list(self._conditions(each, policy.metadata.namespace))

    # --- rules of Kubernetes ---

    def _kubernetes_conditions(
        self, policy: KubernetesNetworkPolicy, rule: NetworkPolicyIngressRule | NetworkPolicyEgressRule
    ) -> Iterator[_Condition]:
        """Any of the peers, and any of the ports; no peers are all, no ports are all."""
        namespace = policy.metadata.namespace
        if isinstance(rule, NetworkPolicyIngressRule):
            yield "from", not rule.from_ or any(self._is_peer(peer, self._source, namespace) for peer in rule.from_)
        else:
            yield "to", not rule.to or any(self._is_peer(peer, self._destination, namespace) for peer in rule.to)
        yield "ports", not rule.ports or any(map(self._is_port, rule.ports))

    def _is_peer(self, peer: NetworkPolicyPeer, address: Address, namespace: str) -> bool:
        if peer.ip_block is not None:
            excepted = any(contains(net, address) for net in peer.ip_block.except_)
            return contains(peer.ip_block.cidr, address) and not excepted
        pod = (self._sender if address is self._source else self._receiver).pod
        if pod is None:
            return False
        if peer.namespace_selector is None:
            there = pod.metadata.namespace == namespace
        else:
            there = selects(peer.namespace_selector, self._who.namespace_labels(pod.metadata.namespace))
        labels = self._who.labels(self._who.pod_thing(pod))
        return there and (peer.pod_selector is None or selects(peer.pod_selector, labels))

    def _is_port(self, port: NetworkPolicyPort) -> bool:
        """A named port is whatever the pod that the packet goes to calls so."""
        number = self._packet.destination_port
        if self._packet.protocol != PROTOCOL_NUMBERS[port.protocol]:
            return False
        if isinstance(port.port, str):
            pod = self._receiver.pod
            return pod is not None and (port.protocol, number) in named_ports(pod, port.port)
        return port.port is None or port.port <= number <= (port.end_port or port.port)

    # --- rules of Calico ---

    def _conditions(self, rule: Rule, namespace: str) -> Iterator[_Condition]:
        packet = self._packet
        if rule.ip_version is not None:
            yield "ipVersion", packet.family == rule.ip_version
        if rule.protocol is not None:
            yield "protocol", packet.protocol == protocol_number(rule.protocol)
        if rule.not_protocol is not None:
            yield "notProtocol", packet.protocol != protocol_number(rule.not_protocol)
        if rule.icmp is not None:
            yield "icmp", self._is_icmp(rule.icmp)
        if rule.not_icmp is not None and rule.not_icmp.type is not None:
            # It speaks of ICMP, also where no protocol is named (Felix's nftables mode: `icmp type != 8`).
            yield "notICMP", self._is_icmp(ICMPFields()) and not self._is_icmp(rule.not_icmp)
        for where, entity, address, port in (
            ("source", rule.source, self._source, packet.source_port),
            ("destination", rule.destination, self._destination, packet.destination_port),
        ):
            for field, holds in self._entity_conditions(entity, rule, namespace, address, port):
                yield f"{where}.{field}", holds
            if entity.services is not None:
                yield f"{where}.services", self._in_service(entity.services, namespace, address, where == "destination")

    def _is_icmp(self, wanted: ICMPFields) -> bool:
        packet = self._packet
        return (
            packet.protocol == _ICMP[packet.family]
            and wanted.type in (None, packet.icmp_type)
            and wanted.code in (None, packet.icmp_code)
        )

    def _entity_conditions(
        self, entity: EntityRule, rule: Rule, namespace: str, address: Address, port: int
    ) -> Iterator[_Condition]:
        if entity.nets:
            yield "nets", any(contains(net, address) for net in entity.nets)
        if entity.not_nets:
            # A rule that names networks is one of their family (Felix, FilterRuleToIPVersion).
            family = any(network_of(net).version == address.version for net in entity.not_nets)
            yield "notNets", family and not any(contains(net, address) for net in entity.not_nets)
        here = [thing for thing in self._who.things if any(address in net for net in thing.nets)]
        chosen = here
        if _chooses(entity, namespace):
            chosen = [thing for thing in here if self._is_chosen(entity, namespace, thing)]
            yield "selector", bool(chosen)
        elif entity.not_selector:
            yield "notSelector", not any(self._who.matches(entity.not_selector, thing) for thing in here)
        if entity.ports:
            yield "ports", any(self._at_port(wanted, rule, port, chosen) for wanted in entity.ports)
        if entity.not_ports:
            yield "notPorts", not any(self._at_port(unwanted, rule, port, chosen) for unwanted in entity.not_ports)

    def _is_chosen(self, entity: EntityRule, namespace: str, thing: Thing) -> bool:
        """One and the same thing is in the namespaces, has the labels, and doesn't have those of notSelector. Without a
        namespaceSelector the namespace is the policy's own, if it lives in one."""
        if entity.namespace_selector:
            there = self._who.in_namespaces(entity.namespace_selector, thing)
        else:
            there = not namespace or thing.namespace == namespace
        excluded = bool(entity.not_selector) and self._who.matches(entity.not_selector, thing)
        accounts = entity.service_accounts or ServiceAccountMatch()
        if accounts.names and self._who.labels(thing).get(SERVICE_ACCOUNT) not in accounts.names:
            return False
        chosen = self._who.matches(entity.selector, thing) and self._who.of_accounts(accounts.selector, thing)
        return there and chosen and not excluded

    def _at_port(self, wanted: Port, rule: Rule, port: int, chosen: list[Thing]) -> bool:
        """A number, or what one of the pods chosen calls so: a port of the rule's protocol, which is TCP where it names
        none (Felix, RuleScanner)."""
        numbers = port_range(wanted)
        if numbers is not None:
            return numbers[0] <= port <= numbers[1]
        number = 6 if rule.protocol is None else protocol_number(rule.protocol)
        protocol = next((name for name in ("UDP", "SCTP") if PROTOCOL_NUMBERS[name] == number), "TCP")
        if self._packet.protocol != PROTOCOL_NUMBERS[protocol]:
            return False
        return any(thing.pod and (protocol, port) in named_ports(thing.pod, str(wanted)) for thing in chosen)

    def _in_service(self, wanted: ServiceMatch, namespace: str, address: Address, with_port: bool) -> bool:
        """One of a Service's endpoints, ready or not; as a destination at one of its ports (Felix, ServiceIndex)."""
        for slice_ in self._who.all(EndpointSlice):
            if (slice_.metadata.namespace, slice_.service) != (wanted.namespace or namespace, wanted.name):
                continue
            ports = [(PROTOCOL_NUMBERS[port.protocol], port.port) for port in slice_.ports or ()]
            if with_port and (self._packet.protocol, self._packet.destination_port) not in ports:
                continue
            if any(str(address) in map(canonical, endpoint.addresses) for endpoint in slice_.endpoints or ()):
                return True
        return False

    def _setting(self, node: str, name: str, default: Value) -> Value:
        """A parameter as it is in force on a node."""
        found = self._who.get(Node, Key("Node", node))
        labels = found.metadata.labels if found is not None else {}
        objects = {each.metadata.name: each for each in self._who.all(FelixConfiguration)}
        chosen = [
            name_ for name_, each in objects.items() if each.node_selector and parse(each.node_selector).matches(labels)
        ]
        value = default
        for name_ in ("default", *chosen, f"node.{node}"):
            if name_ in objects:
                value = values(objects[name_]).get(name, value)
        return self._process.get(name, value)


def _unmet(conditions: Iterable[_Condition]) -> tuple[str, ...]:
    return tuple(field for field, holds in conditions if not holds)


def _name(policy: _Policy) -> str:
    return "/".join(filter(None, (_kind(policy), policy.metadata.namespace, policy.metadata.name)))


def _kind(policy: _Policy) -> str:
    if isinstance(policy, KubernetesNetworkPolicy):
        return "knp"
    return "gnp" if isinstance(policy, GlobalNetworkPolicy) else "np"


def _tier(policy: _Policy) -> str:
    return tiers.DEFAULT if isinstance(policy, KubernetesNetworkPolicy) else policy.spec.tier or tiers.DEFAULT


def _sequence(policy: _Policy) -> tuple[float, str]:
    """Kubernetes' policies stand at 1000 in the default tier (calico.md 1.7)."""
    kind = {"knp": "KubernetesNetworkPolicy", "gnp": "GlobalNetworkPolicy", "np": "NetworkPolicy"}[_kind(policy)]
    order = 1000.0 if isinstance(policy, KubernetesNetworkPolicy) else _order(policy.spec.order)
    return order, f"{policy.metadata.name}/{policy.metadata.namespace}/{kind}"


def _order(order: float | None) -> float:
    return inf if order is None else order


def _directions(policy: _Policy) -> set[str]:
    """What it governs: what it says; else, Calico: that for which it has rules, or ingress; Kubernetes: ingress, and
    egress if it has rules for it."""
    if isinstance(policy, KubernetesNetworkPolicy):
        said = {name.lower() for name in policy.spec.policy_types}
        return said or {"ingress", *(["egress"] if policy.spec.egress else [])}
    said = {name.lower() for name in policy.spec.types}
    ruled = {name for name, rules in (("ingress", policy.spec.ingress), ("egress", policy.spec.egress)) if rules}
    return said or ruled or {"ingress"}


def _chooses(entity: EntityRule, namespace: str) -> bool:
    """True if the address has to be something's that has labels: also, in a policy of a namespace, where only
    notSelector is given (Calico's GetEntityRuleSelector)."""
    accounts = entity.service_accounts or ServiceAccountMatch()
    asked = entity.selector or entity.namespace_selector or accounts.names or accounts.selector
    return bool(asked or (namespace and entity.not_selector))
