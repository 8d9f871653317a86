"""Who is who: whose an address is, and what labels a selector sees. For the evaluator; by Calico's documentation."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeVar

from msgspec import Struct

from calipy.resources import nodes, pods
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.label_selectors import LabelSelector
from calipy.resources.metadata import Key, Resource
from calipy.resources.namespaces import Namespace
from calipy.resources.network_sets import NetworkSet
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod
from calipy.resources.profiles import Profile
from calipy.resources.selectors import parse
from calipy.resources.service_accounts import ServiceAccount

World = Mapping[Key, Resource]
"""All objects of the cluster, as they are accepted."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
R = TypeVar("R", bound=Resource)

SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
_NAMESPACE = "projectcalico.org/namespace"
_NAME = "projectcalico.org/name"
_LONGEST_ACCOUNT = 62
"""A longer name of a service account can't be a label's value."""


class Place(Struct, frozen=True, gc=False):
    """Who an address belongs to: a pod, or the host of `node`; neither is somebody outside."""

    pod: Pod | None = None
    node: str = ""


class Thing(Struct, frozen=True, gc=False):
    """What selectors of Calico's policies select among."""

    labels: Mapping[str, str]
    """Its own."""
    nets: tuple[Network, ...]
    namespace: str = ""
    account: str = ""
    pod: Pod | None = None


class Inhabitants:
    """The world, as far as addresses and labels go."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._objects = [world[key] for key in sorted(world)]
        self.things = tuple(self._all_things())
        """All that a selector may find."""

    def place(self, address: Address) -> Place:
        """Whose an address is."""
        for pod in self.all(Pod):
            if address in _addresses(pod):
                return Place(pod, pod.spec.node_name)
        for node in self.all(Node):
            if address in _node_addresses(node):
                return Place(None, node.metadata.name)
        return Place()

    def _all_things(self) -> Iterator[Thing]:
        yield from map(self.pod_thing, self.all(Pod))
        for local in self.all(NetworkSet):
            nets = tuple(map(network_of, local.spec.nets))
            yield Thing(local.metadata.labels, nets, local.metadata.namespace)
        for global_ in self.all(GlobalNetworkSet):
            nets = tuple(map(network_of, global_.spec.nets))
            yield Thing(global_.metadata.labels, nets)

    def pod_thing(self, pod: Pod) -> Thing:
        """A pod, as selectors see it."""
        nets = tuple(network_of(str(address)) for address in _addresses(pod))
        return Thing(pod.metadata.labels, nets, pod.metadata.namespace, pod.spec.service_account_name, pod)

    def labels(self, thing: Thing) -> Mapping[str, str]:
        """All that a selector sees: what is inherited gives way to its own, its own to Calico's (calico.md 1.5)."""
        labels: dict[str, str] = {}
        for name in reversed(profiles(thing)):
            profile = self.get(Profile, Key("Profile", name))
            labels |= profile.spec.labels_to_apply if profile is not None else {}
        if thing.account:
            labels |= {f"pcsa.{k}": v for k, v in self._account_labels(thing).items()}
        if thing.namespace:
            labels |= {f"pcns.{k}": v for k, v in self.namespace_labels(thing.namespace, named=True).items()}
        labels |= thing.labels
        if thing.namespace:
            labels[_NAMESPACE] = thing.namespace
        if thing.pod is not None:
            labels["projectcalico.org/orchestrator"] = "k8s"
        if 0 < len(thing.account) <= _LONGEST_ACCOUNT:
            labels[SERVICE_ACCOUNT] = thing.account
        return labels

    def matches(self, selector: str, thing: Thing) -> bool:
        """True if a selector of Calico's finds it."""
        return parse(selector).matches(self.labels(thing))

    def in_namespaces(self, selector: str, thing: Thing) -> bool:
        """By the labels of its namespace. `all()` is every namespace, `global()` none; what lies in no namespace has no
        such labels, and none that differs from what is asked for."""
        if not selector:
            return True
        labels = {**self.namespace_labels(thing.namespace, named=True), _NAMESPACE: thing.namespace}
        text = rewritten(selector, {"all()": f"has({_NAMESPACE})", "global()": f"!has({_NAMESPACE})"})
        return parse(text).matches(labels if thing.namespace else {})

    def of_accounts(self, selector: str, thing: Thing) -> bool:
        """By the labels of its service account."""
        labels = self._account_labels(thing) if thing.account else {}
        if 0 < len(thing.account) <= _LONGEST_ACCOUNT:
            labels = {**labels, SERVICE_ACCOUNT: thing.account}
        return parse(selector).matches(labels)

    def namespace_labels(self, name: str, *, named: bool = False) -> dict[str, str]:
        """A namespace's own; `named`: and the one that Calico gives it."""
        found = self.get(Namespace, Key("Namespace", name))
        labels = found.metadata.labels if found is not None else {}
        return {**labels, **({_NAME: name} if named else {})}

    def _account_labels(self, thing: Thing) -> dict[str, str]:
        found = self.get(ServiceAccount, Key("ServiceAccount", thing.account, thing.namespace))
        labels = found.metadata.labels if found is not None else {}
        return {**labels, _NAME: thing.account}

    def get(self, kind: type[R], key: Key) -> R | None:
        """An object by its key."""
        found = self._world.get(key)
        return found if isinstance(found, kind) else None

    def all(self, kind: type[R]) -> Iterator[R]:
        """All objects of a kind, by key."""
        return (value for value in self._objects if isinstance(value, kind))


def profiles(thing: Thing) -> list[str]:
    """Those that it has: of its namespace, of its service account."""
    names = [f"kns.{thing.namespace}"] if thing.namespace else []
    return [*names, f"ksa.{thing.namespace}.{thing.account}"] if thing.account else names


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """metav1.LabelSelector: NotIn holds where the label is absent, too."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for wanted in selector.match_expressions:
        found = labels.get(wanted.key)
        holds = {
            "In": found in wanted.values,
            "NotIn": found not in wanted.values,
            "Exists": found is not None,
            "DoesNotExist": found is None,
        }[wanted.operator]
        if not holds:
            return False
    return True


def rewritten(selector: str, words: Mapping[str, str]) -> str:
    """A selector's canonical text with some of its words said otherwise; an empty one stays so."""
    text = parse(selector).canonical if selector else ""
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text


def named_ports(pod: Pod, name: str) -> set[tuple[str, int]]:
    """Protocol and number of the ports that a pod's containers, init containers too, call so."""
    containers = (*pod.spec.containers, *pod.spec.init_containers)
    return {
        (port.protocol, port.container_port) for each in containers for port in each.ports if port.name == name
    }  # fmt: skip


def _addresses(pod: Pod) -> list[Address]:
    """A pod's own: one on its host's network has none, nor has one that has finished (calico.md 1.5)."""
    if pod.spec.host_network or pod.finished:
        return []
    notes = pod.metadata.annotations
    for texts in (
        [entry.ip for entry in pod.status.pod_ips],
        [pod.status.pod_ip],
        notes.get(pods.POD_IPS, "").split(","),
        [notes.get(pods.POD_IP, "")],
    ):
        found = list(_readable(texts))
        if found:
            return found
    return []


def _node_addresses(node: Node) -> set[Address]:
    """The host's own, its tunnels' too."""
    names = (nodes.IPV4_ADDRESS, nodes.IPV6_ADDRESS, nodes.VXLAN_ADDRESS, nodes.VXLAN_V6_ADDRESS, nodes.IPIP_ADDRESS)
    texts = [node.metadata.annotations.get(name, "") for name in names]
    texts += [each.address for each in node.status.addresses if each.type in ("InternalIP", "ExternalIP")]
    return set(_readable(texts))


def _readable(texts: Iterable[str]) -> Iterator[Address]:
    """The addresses among these. What is none counts as not there: agents pass it over, too."""
    for text in texts:
        try:
            yield _address(text.strip())
        except ValueError:
            continue


@lru_cache(16384)
def _address(text: str) -> Address:
    """Of an address, with or without a prefix length. Raises ValueError."""
    return ipaddress.ip_interface(text).ip


@lru_cache(16384)
def network_of(text: str) -> Network:
    """Of a CIDR, whatever bits are set behind its prefix, or of one address."""
    return ipaddress.ip_network(text, strict=False)


def contains(net: str, address: Address) -> bool:
    """True if an address is one of a CIDR's."""
    return address in network_of(net)


def canonical(address: str) -> str:
    """An address as it is spelled best; empty for what is none, such as a name."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""
