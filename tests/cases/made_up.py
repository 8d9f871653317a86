"""Small worlds that hypothesis makes up: two nodes, few labels and addresses, so that things meet; and packets.

Their parts are made beforehand, in lists from short to long, and drawn from there: that is quick, and what fails
shrinks to the short ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from random import Random
from typing import Any, TypeVar

import msgspec
import yaml
from hypothesis import strategies as st
from msgspec import Struct, structs

from calipy.explain.verdicts import Packet, Verdict
from calipy.resources.endpoint_slices import EndpointSlice
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.global_network_policies import GlobalNetworkPolicy
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.kubernetes_network_policies import (
    KubernetesNetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
)
from calipy.resources.metadata import Key, ObjectMeta, Resource, accept
from calipy.resources.network_policies import NetworkPolicy
from calipy.resources.network_sets import NetworkSet
from calipy.resources.pods import Pod
from calipy.resources.policy_rules import Rule
from calipy.resources.profiles import Profile, ProfileSpec
from calipy.resources.service_accounts import ServiceAccount
from calipy.resources.tiers import Tier, TierSpec
from tests.cases.loading import NODES, OUTSIDE, TUNNELS, family_of, kind_of, namespace, node

T = TypeVar("T")
Document = dict[str, Any]
Policy = NetworkPolicy | GlobalNetworkPolicy | KubernetesNetworkPolicy

SPACES, ACCOUNTS = ("s", "t"), ("one", "two")
SELECTORS = (
    "all()", "a == 'x'", "a != 'x'", "has(b)", "!has(b)", "b in {'x', 'y'}", "b not in {'y'}", "a == 'x' || b == 'y'",
    "a == 'x' && b == 'x'", "pcns.team == 'x'", "has(pcsa.role)", "projectcalico.org/namespace == 's'",
)  # fmt: skip
SPACE_SELECTORS = ("all()", "team == 'x'", "team != 'x'", "!has(team)", "projectcalico.org/name == 's'")
ACCOUNT_SELECTORS = ("all()", "role == 'x'", "role != 'x'", "projectcalico.org/name == 'one'")
NETS = {
    4: (
        "10.244.1.0/24", "10.244.1.1/32", "10.244.0.0/16", "10.244.2.2/31", "198.51.100.0/24", "0.0.0.0/1",
        "10.9.0.1/32",
    ),
    6: (
        "fd00:244:1::/64", "fd00:244:1::1/128", "fd00:244::/32", "fd00:244:2::2/127", "2001:db8::/64", "::/1",
        "fd00:9::1/128",
    ),
}  # fmt: skip
ADDRESSES = ("10.244.1.1", "10.244.2.2", "198.51.100.7", "fd00:244:1::1", "fd00:244:2::2", "2001:db8::7")
WITH_PORTS = ("TCP", "UDP", "SCTP")
PORTS = (80, 81, "80:81", "http", "other")
LABEL_SELECTORS: tuple[Document, ...] = (
    {}, {"matchLabels": {"a": "x"}}, {"matchLabels": {"b": "y"}},
    {"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]},
    {"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["x"]}]},
    {"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]},
    {"matchExpressions": [{"key": "a", "operator": "Exists"}], "matchLabels": {"b": "x"}},
)  # fmt: skip
SPACE_LABEL_SELECTORS: tuple[Document, ...] = (
    {}, {"matchLabels": {"team": "x"}}, {"matchLabels": {"kubernetes.io/metadata.name": "t"}},
    {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["x"]}]},
)  # fmt: skip
BLOCKS: tuple[Document, ...] = (
    {"cidr": "10.244.0.0/16"}, {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24", "10.244.2.2/31"]},
    {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}, {"cidr": "198.51.100.7/32"}, {"cidr": "::/0"},
    {"cidr": "fd00:244::/32", "except": ["fd00:244:1::1/128"]},
)  # fmt: skip
POLICY_PORTS: tuple[Document, ...] = (
    {}, {"port": 80}, {"port": 80, "endPort": 81}, {"port": "http"}, {"protocol": "UDP"},
    {"port": 81, "protocol": "UDP"}, {"port": "http", "protocol": "UDP"}, {"port": 80, "protocol": "SCTP"},
)  # fmt: skip
TYPES = ((), ("Ingress",), ("Egress",), ("Ingress", "Egress"))


# --- what chance makes ---


class _Chance:
    """Fields of documents."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def one(self, values: Sequence[T]) -> T:
        """One of them."""
        return self._random.choice(values)

    def few(self, values: Sequence[T], most: int = 2) -> list[T]:
        """One or more, each once."""
        return self._random.sample(values, self._random.randint(1, most))

    def some(self, share: float, **fields: Callable[[], Any]) -> Document:
        """Each of the fields with this probability."""
        return {name: make() for name, make in fields.items() if self._random.random() < share}

    def rule(self, *, ingress: bool, actions: Sequence[str] = ("Allow", "Allow", "Deny", "Pass", "Log")) -> Document:
        """A rule of Calico's."""
        protocol = self.one((*[None] * 8, *["TCP"] * 7, "UDP", "UDP", "SCTP", "ICMP", "ICMPv6", 47))
        family = {"ICMP": 4, "ICMPv6": 6}.get(str(protocol), self.one((4, 6)))
        near, far = ("destination", "source") if ingress else ("source", "destination")
        found = {
            "action": self.one(actions),
            far: self._far(family, protocol, ingress=ingress),
            **self.some(0.2, **{near: lambda: self._entity(family, protocol)}),
            **self.some(0.15, ipVersion=lambda: family, notProtocol=lambda: self.one(("TCP", "UDP", 47))),
        }
        if protocol in ("ICMP", "ICMPv6"):
            found |= self.some(0.5, icmp=lambda: self._icmp(family), notICMP=lambda: self._icmp(family))
        elif protocol is None:
            found |= self.some(0.05, notICMP=lambda: self._icmp(family))
        return {**found, **({"protocol": protocol} if protocol is not None else {})}

    def _icmp(self, family: int) -> Document:
        type_ = {4: 8, 6: 128}[family]
        return self.one(({"type": type_}, {"type": type_, "code": 0}, {"type": type_, "code": 1}, {"type": 3}))

    def _ports(self, protocol: Any) -> dict[str, Callable[[], Any]]:
        ports = [port for port in PORTS if protocol in WITH_PORTS or (protocol is None and str(port).isalpha())]
        return {"ports": lambda: self.few(ports), "notPorts": lambda: self.few(ports)} if ports else {}

    def _entity(self, family: int, protocol: Any) -> Document:
        nets = NETS[family]
        lists = self.some(0.12, nets=lambda: self.few(nets), notNets=lambda: self.few(nets))
        selectors = self.some(0.2, selector=lambda: self.one(SELECTORS), notSelector=lambda: self.one(SELECTORS))
        return {**lists, **selectors, **self.some(0.2, **self._ports(protocol))}

    def _far(self, family: int, protocol: Any, *, ingress: bool) -> Document:
        if self._random.random() < 0.1:
            match = {"name": self.one(ACCOUNTS), "namespace": self.one(SPACES)}
            return {"services": match, **(self.some(0.3, **self._ports(protocol)) if ingress else {})}
        more = self.some(
            0.1, namespaceSelector=lambda: self.one((*SPACE_SELECTORS, "global()")),
            serviceAccounts=lambda: self.some(
                0.6, names=lambda: self.few(ACCOUNTS), selector=lambda: self.one(ACCOUNT_SELECTORS)
            ),
        )  # fmt: skip
        return {**self._entity(family, protocol), **more}

    def kubernetes_rule(self, way: str) -> Document:
        """A rule of Kubernetes'."""
        return self.some(
            0.6, **{way: lambda: [self._peer() for _ in range(self.one((1, 1, 2)))]},
            ports=lambda: self.few(POLICY_PORTS),
        )  # fmt: skip

    def _peer(self) -> Document:
        if self._random.random() < 0.3:
            return {"ipBlock": self.one(BLOCKS)}
        found = self.some(
            0.6, podSelector=lambda: self.one(LABEL_SELECTORS),
            namespaceSelector=lambda: self.one(SPACE_LABEL_SELECTORS),
        )  # fmt: skip
        return found or {"podSelector": {}}

    def pod(self, number: int) -> Document:
        """A pod with addresses of its own."""
        at = self.one(sorted(NODES))
        addresses = [str(ipaddress.ip_address(base) + number) for base in TUNNELS[at]]
        given = self.one([addresses] * 6 + [addresses[:1], addresses[1:]])
        ports = [
            {"name": "http", "containerPort": self.one((80, 81)), "protocol": self.one(WITH_PORTS)}
            for _ in range(self.one((0, 1, 1, 2)))
        ]
        on_host = self._random.random() < 0.05
        given = list(NODES[at]) if on_host else given
        return {
            "metadata": {"name": f"p{number}", "namespace": self.one(SPACES), "labels": self.labels()},
            "spec": {
                "nodeName": at, "hostNetwork": on_host, "serviceAccountName": self.one(("", *ACCOUNTS)),
                "containers": [{"name": "c", "ports": ports}],
            },
            "status": {
                "phase": self.one(("Running",) * 7 + ("Succeeded",)), "podIPs": [{"ip": each} for each in given]
            },
        }  # fmt: skip

    def labels(self) -> dict[str, str]:
        """Of a pod or a network set."""
        return self.some(0.6, a=lambda: self.one("xy"), b=lambda: self.one("xy"))

    def slice(self) -> Document:
        """Endpoints of a service."""
        family = self.one(("IPv4", "IPv6"))
        mine = [address for address in ADDRESSES if (":" in address) == (family == "IPv6")]
        ports = ({"port": 80}, {"port": 81, "protocol": "UDP"}, {"port": 80, "protocol": "SCTP"}, {})
        return {
            "metadata": {
                "name": "", "namespace": self.one(SPACES),
                "labels": {"kubernetes.io/service-name": self.one(ACCOUNTS)},
            },
            "addressType": family, "endpoints": [{"addresses": [each]} for each in self.few(mine)],
            "ports": self.few(ports),
        }  # fmt: skip


def _many(type_: type[T], make: Callable[[_Chance], Document], count: int = 400) -> list[T]:
    """As chance makes them, from short to long."""
    chance = _Chance(1)
    documents = [msgspec.json.encode(make(chance)) for _ in range(count)]
    return [msgspec.json.decode(each, type=type_) for each in sorted(documents, key=lambda each: (len(each), each))]


@cache
def parts() -> Mapping[str, list[Any]]:
    """All that worlds are put together from."""
    ingress = _many(Rule, lambda chance: chance.rule(ingress=True), 3000)
    egress = _many(Rule, lambda chance: chance.rule(ingress=False), 3000)
    return {
        "ingress": ingress,
        "egress": egress,
        "profile ingress": [rule for rule in ingress if rule.action != "Pass"],
        "profile egress": [rule for rule in egress if rule.action != "Pass"],
        "from": _many(NetworkPolicyIngressRule, lambda chance: chance.kubernetes_rule("from")),
        "to": _many(NetworkPolicyEgressRule, lambda chance: chance.kubernetes_rule("to")),
        "slices": _many(EndpointSlice, lambda chance: {"kind": "EndpointSlice", **chance.slice()}),
        **{f"pod {number}": _many(Pod, partial(_pod, number)) for number in range(1, 7)},
    }


def _pod(number: int, chance: _Chance) -> Document:
    return {"kind": "Pod", **chance.pod(number)}


# --- what hypothesis draws ---


def _of(name: str) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: st.sampled_from(parts()[name]))


def _up_to(most: int, values: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(values, max_size=most).map(tuple)


_LABELS = st.sampled_from([{}, {"a": "x"}, {"b": "x"}, {"a": "y", "b": "y"}, {"a": "x", "b": "y"}])
_RULES = {"ingress": _up_to(5, _of("ingress")), "egress": _up_to(5, _of("egress"))}
_KUBERNETES_RULES = {"ingress": _up_to(2, _of("from")), "egress": _up_to(2, _of("to"))}
_TIERS = st.sampled_from(["", "t1", "t2", "kube-admin"])
_ORDERS = st.sampled_from([None, 1.0, 5.0, 1000.0, 2000.0])
_ANY = st.sampled_from([*[""] * 12, *SELECTORS])
_ANY_SPACE = st.sampled_from([*[""] * 9, *SPACE_SELECTORS])
_ANY_ACCOUNT = st.sampled_from([*[""] * 9, *ACCOUNT_SELECTORS])


@st.composite
def _policies(draw: st.DrawFn, name: str) -> Policy:
    type_ = draw(st.sampled_from((KubernetesNetworkPolicy, NetworkPolicy, GlobalNetworkPolicy)))
    space = draw(st.sampled_from(SPACES)) if type_ is not GlobalNetworkPolicy else ""
    types = draw(st.sampled_from(TYPES))
    if type_ is KubernetesNetworkPolicy:
        spec = {"podSelector": draw(st.sampled_from(LABEL_SELECTORS)), "policyTypes": types}
        rules = {way: draw(values) for way, values in _KUBERNETES_RULES.items()}
    else:
        spec = {
            "tier": draw(_TIERS), "order": draw(_ORDERS), "selector": draw(_ANY), "types": types,
            "serviceAccountSelector": draw(_ANY_ACCOUNT),
        }  # fmt: skip
        rules = {way: draw(values) for way, values in _RULES.items()}
    if type_ is GlobalNetworkPolicy:
        spec["namespaceSelector"] = draw(_ANY_SPACE)
    made = type_(metadata=ObjectMeta(name=name, namespace=space))
    return structs.replace(made, spec=structs.replace(msgspec.convert(spec, type(made.spec)), **rules))


_ROLES = st.sampled_from([{}, {"role": "x"}, {"role": "y"}])
_TEAMS = st.sampled_from([{}, {"team": "x"}, {"team": "y"}])
_NETS = st.lists(st.sampled_from([*NETS[4], *NETS[6]]), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def _surroundings(draw: st.DrawFn) -> list[Resource]:
    """What comes beside pods and policies."""
    found: list[Resource] = [namespace(space, draw(_TEAMS)) for space in SPACES]
    found += [
        ServiceAccount(metadata=ObjectMeta(name=account, namespace=space, labels=draw(_ROLES)))
        for space in SPACES
        for account in ACCOUNTS
    ]
    for name in draw(st.sampled_from([(), ("t1",), ("t1", "t2")])):
        order, action = draw(st.sampled_from([None, 2.0, 500.0, 2e6])), draw(st.sampled_from(["Deny", "Pass"]))
        found.append(Tier(metadata=ObjectMeta(name=name), spec=TierSpec(order=order, default_action=action)))
    for number in range(draw(st.integers(0, 2))):
        space = draw(st.sampled_from(("", *SPACES)))
        metadata = ObjectMeta(name=f"n{number}", namespace=space, labels=draw(_LABELS))
        made = NetworkSet(metadata=metadata) if space else GlobalNetworkSet(metadata=metadata)
        found.append(structs.replace(made, spec=structs.replace(made.spec, nets=draw(_NETS))))
    for number in range(draw(st.integers(0, 2))):
        slice_ = draw(_of("slices"))
        found.append(structs.replace(slice_, metadata=structs.replace(slice_.metadata, name=f"e{number}")))
    if draw(st.integers(0, 5)) == 5:
        name = draw(st.sampled_from(("kns.s", "ksa.s.one")))
        ingress, egress = (draw(_up_to(2, _of(f"profile {way}"))) for way in ("ingress", "egress"))
        profile = ProfileSpec(ingress=ingress, egress=egress, labels_to_apply={"b": "x"})
        found.append(Profile(metadata=ObjectMeta(name=name), spec=profile))
    if draw(st.integers(0, 5)) == 5:
        spec = {"defaultEndpointToHostAction": draw(st.sampled_from(["ACCEPT", "RETURN"]))}
        found.append(FelixConfiguration(metadata=ObjectMeta(name="default"), spec=spec))
    return found


class MadeUp(Struct, frozen=True, gc=False):
    """A world and packets in it."""

    objects: list[Resource]
    """All but the nodes."""
    packets: list[Packet]

    @property
    def world(self) -> dict[Key, Resource]:
        """Its objects, each as it has to be to be accepted."""
        values = [(kind_of(value), value) for value in (*map(node, NODES), *self.objects)]
        return {kind.key(value): accept(kind, value) for kind, value in values}

    def __repr__(self) -> str:
        return f"<{len(self.objects)} objects, {len(self.packets)} packets>"


def _pairs(pods: Iterable[Pod]) -> list[tuple[str, str]]:
    """Of ends, one of which is a pod."""
    inside = [each.ip for pod in pods for each in pod.status.pod_ips]
    hosts = (*NODES["n1"], *NODES["n2"], *TUNNELS["n1"])
    return [
        (source, destination)
        for sources, destinations, weight in (
            (inside, inside, 2), (OUTSIDE, inside, 4), (inside, OUTSIDE, 4), (hosts, inside, 1), (inside, hosts, 1),
        )
        for source in sources
        for destination in destinations
        if source != destination and family_of(source) == family_of(destination)
        for _ in range(weight)
    ]  # fmt: skip


_KINDS = {
    family: [
        *[(6, 40000, 80)] * 12, *[(6, 40000, 81)] * 4, *[(17, 40000, 80)] * 4,
        *((protocol, source, port) for protocol in (6, 17, 132) for source in (40000, 80) for port in (80, 81, 82)),
        *icmp, (47, 0, 0),
    ]
    for family, icmp in ((4, [(1, 8, 0), (1, 8, 1), (1, 3, 1)]), (6, [(58, 128, 0), (58, 128, 1), (58, 135, 0)]))
}  # fmt: skip


def _packet(source: str, destination: str, kind: tuple[int, int, int]) -> Packet:
    protocol, first, second = kind
    if protocol in (1, 58):
        return Packet(source=source, destination=destination, protocol=protocol, icmp_type=first, icmp_code=second)
    return Packet(source=source, destination=destination, protocol=protocol, source_port=first, destination_port=second)


@st.composite
def worlds(draw: st.DrawFn, packets: int = 20) -> MadeUp:
    """A world, and so many packets, by chance: they have not to shrink, for one is enough."""
    pods = [draw(_of(f"pod {number}")) for number in range(1, 1 + draw(st.integers(2, 6)))]
    policies = [draw(_policies(f"w{number}")) for number in range(draw(st.integers(1, 4)))]
    chance, pairs = Random(draw(st.integers(0, 255))), _pairs(pods)
    chosen = [chance.choice(pairs) for _ in range(packets)]
    sent = [_packet(*ends, chance.choice(_KINDS[family_of(ends[0])])) for ends in chosen]
    return MadeUp([*draw(_surroundings()), *pods, *policies], sent)


# --- what people read ---

_WORDS = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6"}


def story(objects: Iterable[Resource], packet: Packet, verdict: Verdict) -> str:
    """A world and a packet as a file of `policy/` tells them, with the evaluator's verdict."""
    what = f"proto {packet.protocol}"
    if packet.protocol in (1, 58):
        what = f"{_WORDS[packet.protocol]} {packet.icmp_type}/{packet.icmp_code}"
    elif packet.protocol in _WORDS:
        what = f"{_WORDS[packet.protocol]} {packet.destination_port} from {packet.source_port}"
    said = ", ".join(str(each) for each in (verdict.egress, verdict.ingress) if each is not None)
    row = f"{packet.source} -> {packet.destination}  {what}  : {'allow' if verdict.allowed else 'deny'}  {said}"
    documents = [msgspec.to_builtins(each) for each in objects]
    told = [yaml.safe_dump(each, sort_keys=False, default_flow_style=None, width=120) for each in documents]
    return "---\n".join([*told, f"packets: |\n  {row}\n"])
