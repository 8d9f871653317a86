"""The cases of policy as values: each file of `policy/` is one scenario, told from top to bottom in YAML documents.

A document with a `kind` is an object as `pycalicoctl apply` takes it; it is there from then on. The others are ours:

    namespaces: |
      shop  team=a                                        labels; that of its name is always there
    pods: |
      shop/web  n1  app=web  sa:web  port:http/TCP/80     node, labels, service account, container's port; there are
                                                          also init-port:, ip: (comma separated), phase:, hostNetwork
    delete: NetworkPolicy shop/web
    packets: |
      shop/client -> shop/web  TCP 80,81 from 1024  v4  : allow  ingress default/knp/shop/web#0, egress ...

A pod that is told again keeps its addresses. A packet's ends are pods, nodes (`n1`, or `n1:tunnel` for its tunnel's
address), `outside`, or addresses; it is sent in each family that both ends have. Protocols without ports: `ICMP 8`,
`ICMP 3/4`, `ICMPv6 128`, `proto 47`. What decided has to be said for each direction, but where nothing governs or a
profile allows. `#` begins a line that is for people alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct

from calipy.ctl.fields import unknown_fields
from calipy.explain.verdicts import Decision, Packet, Verdict
from calipy.resources import kinds, nodes
from calipy.resources.metadata import Key, Kind, ObjectMeta, Resource, accept, decode
from calipy.resources.namespaces import Namespace
from calipy.resources.nodes import Node, NodeStatus, NodeStatusAddress
from calipy.resources.pods import Container, ContainerPort, Pod, PodAddress, PodSpec, PodStatus
from calipy.resources.policy_rules import PROTOCOL_NUMBERS
from calipy.resources.service_accounts import ServiceAccount

FOLDER = Path(__file__).parent / "policy"
OUTSIDE = ("198.51.100.7", "2001:db8::7")
NODES = {"n1": ("10.9.0.1", "fd00:9::1"), "n2": ("10.9.0.2", "fd00:9::2")}
TUNNELS = {"n1": ("10.244.1.0", "fd00:244:1::"), "n2": ("10.244.2.0", "fd00:244:2::")}
"""The tunnels' addresses; a node's pods have those that follow."""
CLIENT_PORT = 40000
"""The source port of packets that name none."""


class Row(Struct, frozen=True, gc=False, kw_only=True):
    """One packet and what is expected of it."""

    where: str
    """`file.yaml:12`."""
    text: str
    packet: Packet
    allowed: bool
    decisions: tuple[str, ...]
    """As `str` of a Decision."""

    def problem(self, verdict: Verdict) -> str:
        """How a verdict differs from what is expected; empty where it doesn't."""
        found = [each for each in (verdict.egress, verdict.ingress) if each is not None]
        named = {text.partition(" ")[0] for text in self.decisions}
        said = [str(each) for each in found if each.direction in named or not is_free(each)]
        if verdict.allowed == self.allowed and sorted(said) == sorted(self.decisions):
            return ""
        word = "allow" if verdict.allowed else "deny"
        return f"{self.where}: {self.text}\n  {self.packet}\n  found: {word}  {', '.join(said)}"


def is_free(decision: Decision) -> bool:
    """True where nothing stood in the way and nothing has to be said."""
    plain = decision.reason == "not governed" or decision.reason.startswith("profile ")
    return decision.allowed and plain


class Scene(Struct, frozen=True, gc=False):
    """A world, and the packets that are sent in it."""

    world: Mapping[Key, Resource]
    rows: tuple[Row, ...]


class Case(Struct, frozen=True, gc=False):
    """A file."""

    name: str
    scenes: tuple[Scene, ...]


@cache
def cases() -> tuple[Case, ...]:
    """All files, by name, read once."""
    return tuple(load(path) for path in sorted(FOLDER.glob("*.yaml")))


def load(path: Path) -> Case:
    """A file's scenes. Raises ValueError that names the line for what can't be read, Refused for wrong objects."""
    return Case(path.stem, tuple(_Story(path).scenes()))


class _Story:
    """The world as it becomes, line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._world: dict[Key, Resource] = {}
        self._taken = dict.fromkeys(NODES, 0)
        for name in NODES:
            self._put(node(name))

    def scenes(self) -> Iterator[Scene]:
        """One for each `packets`."""
        text = self._path.read_text()
        for mapping in yaml.compose_all(text, Loader=yaml.CSafeLoader):
            document: dict[str, Any] = yaml.SafeLoader("").construct_document(mapping)
            if "kind" in document:
                self._put(resource(document))
                continue
            for (key, said), (at, value) in zip(document.items(), mapping.value, strict=True):
                first = at.start_mark.line + (2 if value.style == "|" else 1)
                yield from self._told(key, list(_lines(str(said), first)))

    def _told(self, key: str, lines: list[tuple[int, str]]) -> Iterator[Scene]:
        tellers = {"namespaces": self._namespace, "pods": self._pod, "delete": self._delete}
        if key == "packets":
            yield Scene(dict(self._world), tuple(row for number, line in lines for row in self._rows(number, line)))
        elif key in tellers:
            for number, line in lines:
                tellers[key](number, line)
        else:
            raise self._error(lines[0][0], f"{key} is none of {', '.join(tellers)} and packets")

    def _error(self, line: int, problem: str) -> ValueError:
        return ValueError(f"{self._path.name}:{line}: {problem}")

    def _put(self, value: Resource) -> None:
        kind = kind_of(value)
        accept(kind, value)
        self._world[kind.key(value)] = value

    def _namespace(self, number: int, line: str) -> None:
        name, *labels = line.split()
        self._put(namespace(name, _labels(labels)))

    def _delete(self, number: int, line: str) -> None:
        kind, _, name = line.partition(" ")
        space, _, own = name.rpartition("/")
        key = Key(kind, own, space)
        if self._world.pop(key, None) is None:
            raise self._error(number, f"{key} isn't there")

    def _pod(self, number: int, line: str) -> None:
        name, at, *rest = line.split()
        space, _, own = name.partition("/")
        options: dict[str, list[str]] = {}
        for word in (word for word in rest if "=" not in word):
            options.setdefault(word.partition(":")[0], []).append(word.partition(":")[2])
        if unknown := options.keys() - {"sa", "port", "init-port", "ip", "phase", "hostNetwork"}:
            raise self._error(number, f"{', '.join(unknown)}: no pod has that")
        account = options.get("sa", [""])[0]
        if Key("Namespace", space) not in self._world:
            self._put(namespace(space, {}))
        if account and Key("ServiceAccount", account, space) not in self._world:
            self._put(ServiceAccount(metadata=ObjectMeta(name=account, namespace=space)))
        spec = PodSpec(
            node_name=at, service_account_name=account, host_network="hostNetwork" in options,
            containers=(_container("main", options.get("port", [])),),
            init_containers=(_container("first", options.get("init-port", [])),),
        )  # fmt: skip
        metadata = ObjectMeta(name=own, namespace=space, labels=_labels(word for word in rest if "=" in word))
        addresses = self._pod_addresses(Key("Pod", own, space), at, options)
        pod_ips = tuple(PodAddress(ip=each) for each in addresses)
        status = PodStatus(phase=options.get("phase", ["Running"])[0], pod_ip=addresses[0], pod_ips=pod_ips)
        self._put(Pod(metadata=metadata, spec=spec, status=status))

    def _pod_addresses(self, key: Key, at: str, options: Mapping[str, list[str]]) -> tuple[str, ...]:
        before = self._world.get(key)
        if "ip" in options:
            return tuple(options["ip"][0].split(","))
        if "hostNetwork" in options:
            return NODES[at]
        if isinstance(before, Pod):
            return tuple(each.ip for each in before.status.pod_ips)
        self._taken[at] += 1
        return tuple(str(ipaddress.ip_address(base) + self._taken[at]) for base in TUNNELS[at])

    def _rows(self, number: int, line: str) -> Iterator[Row]:
        found = _ROW.fullmatch(line)
        if found is None:
            raise self._error(number, f"{line!r} is no packet")
        decisions = tuple(" ".join(part.split()) for part in found["decisions"].split(",") if part.strip())
        pairs = list(self._pairs(number, found))
        if not pairs:
            raise self._error(number, "the ends have no family in common")
        for source, destination in pairs:
            for packet in _packets(source, destination, found):
                yield Row(
                    where=f"{self._path.name}:{number}", text=line, packet=packet,
                    allowed=found["verdict"] == "allow", decisions=decisions,
                )  # fmt: skip

    def _pairs(self, number: int, found: re.Match[str]) -> Iterator[tuple[str, str]]:
        of_protocol = {"ICMP": "v4", "ICMPv6": "v6"}.get(found["protocol"])
        wanted = {"v4": (4,), "v6": (6,)}.get(of_protocol or found["family"], (4, 6))
        for source in self._end(number, found["source"]):
            for destination in self._end(number, found["destination"]):
                if family_of(source) == family_of(destination) and family_of(source) in wanted:
                    yield source, destination

    def _end(self, number: int, end: str) -> tuple[str, ...]:
        if end == "outside":
            return OUTSIDE
        name, _, way = end.partition(":")
        if name in NODES and way in ("", "tunnel"):
            return TUNNELS[name] if way else NODES[name]
        space, _, own = end.partition("/")
        pod = self._world.get(Key("Pod", own, space))
        if isinstance(pod, Pod):
            return tuple(each.ip for each in pod.status.pod_ips)
        try:
            return (str(ipaddress.ip_address(end)),)
        except ValueError:
            raise self._error(number, f"{end} is nobody") from None


def _lines(text: str, first: int) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without those that are blank or for people alone."""
    for number, line in enumerate(text.splitlines(), first):
        if line.strip() and not line.strip().startswith("#"):
            yield number, line.strip()


_ROW = re.compile(
    r"(?P<source>\S+) +-> +(?P<destination>\S+) +(?P<protocol>\w+) +(?P<ports>[\d,/]+)(?: +from +(?P<from>\d+))?"
    r"(?: +(?P<family>v[46]))? +: +(?P<verdict>allow|deny)(?P<decisions>(?: .*)?)"
)


def _packets(source: str, destination: str, found: re.Match[str]) -> Iterator[Packet]:
    protocol = found["protocol"]
    for text in found["ports"].split(","):
        number, _, code = text.partition("/")
        if protocol == "proto":
            yield Packet(source=source, destination=destination, protocol=int(number))
        elif protocol in ("ICMP", "ICMPv6"):
            yield Packet(
                source=source, destination=destination, protocol=PROTOCOL_NUMBERS[protocol],
                icmp_type=int(number), icmp_code=int(code or 0),
            )  # fmt: skip
        else:
            yield Packet(
                source=source, destination=destination, protocol=PROTOCOL_NUMBERS[protocol],
                source_port=int(found["from"] or CLIENT_PORT), destination_port=int(number),
            )  # fmt: skip


def _labels(words: Any) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def _container(name: str, ports: list[str]) -> Container:
    parts = [text.split("/") for text in ports]
    found = [{"name": own, "protocol": protocol, "containerPort": int(number)} for own, protocol, number in parts]
    return Container(name=name, ports=msgspec.convert(found, tuple[ContainerPort, ...]))


def family_of(address: str) -> Literal[4, 6]:
    """4 or 6."""
    return 6 if ":" in address else 4


def namespace(name: str, labels: Mapping[str, str]) -> Namespace:
    """A namespace as the API server keeps it."""
    return Namespace(metadata=ObjectMeta(name=name, labels={"kubernetes.io/metadata.name": name, **labels}))


def node(name: str) -> Node:
    """A node as its agent annotates it."""
    notes = {
        nodes.IPV4_ADDRESS: f"{NODES[name][0]}/24", nodes.IPV6_ADDRESS: f"{NODES[name][1]}/64",
        nodes.VXLAN_ADDRESS: TUNNELS[name][0], nodes.VXLAN_V6_ADDRESS: TUNNELS[name][1],
    }  # fmt: skip
    addresses = tuple(NodeStatusAddress(type="InternalIP", address=address) for address in NODES[name])
    return Node(metadata=ObjectMeta(name=name, annotations=notes), status=NodeStatus(addresses=addresses))


def resource(document: dict[str, Any]) -> Resource:
    """An object from its document. Raises ValueError; a field that its kind doesn't have is an error, too."""
    kind = next(
        (each for each in kinds.ALL if (each.api_version, each.kind) == (document.get("apiVersion"), document["kind"])),
        None,
    )
    if kind is None:
        raise ValueError(f"{document.get('apiVersion')} {document['kind']} is not known")
    if problems := list(unknown_fields(kind, document)):
        raise ValueError(f"{document['metadata']['name']}: {'; '.join(map(str, problems))}")
    value: Resource = decode(kind, msgspec.json.encode(document))
    return value


def kind_of(value: Resource) -> Kind[Any]:
    """The kind of an object."""
    return next(kind for kind in kinds.ALL if kind.type is type(value))
