"""The kernel as the third answer: each row of the table as a real packet, between pods of two nodes and the world
outside, in both families; and which rules have counted it.

Both nodes run whole engines, fed with the case's objects. Packets are told apart by marks of their own, so all of a
scene are under way together.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from msgspec import structs

from calipy.explain.inhabitants import World
from calipy.explain.reference import evaluate
from calipy.explain.verdicts import Packet, Step, Verdict
from calipy.felix.calc.world import ResourceGone
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.netlink.socket import inside
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.metadata import Key, ObjectMeta, Resource
from calipy.resources.pods import Pod
from tests.cases.loading import NODES, TUNNELS, Case, cases
from tests.cases.made_up import MadeUp, story, worlds
from tests.netns.felix import packets

GATEWAY = {4: "10.9.0.254", 6: "fd00:9::fe"}
BLOCKS = {"n1": ("10.244.1.0/24", "fd00:244:1::/64"), "n2": ("10.244.2.0/24", "fd00:244:2::/64")}
OTHERS = (6, 17, 132, 136, 47)
"""Protocols of both families that a host listens to."""
WORDS = {6: "tcp", 17: "udp", 136: "udplite", 132: "sctp", 1: "icmp", 58: "icmp"}
SETTINGS = tuple(
    f"{family}.conf.{which}.{setting}=0"
    for family, setting in (("ipv6", "accept_dad"), ("ipv4", "rp_filter"), ("ipv4", "send_redirects"))
    for which in ("all", "default")
)
"""Before there are links: an address is there at once, whoever sends, and nobody is shown a shorter way."""
WORLDS = 400 if os.environ.get("CI") == "true" else 60
WAIT_S, QUIET_S = 1.0, 0.03
UNTRACKED = FelixConfiguration(metadata=ObjectMeta(name="default"), spec={"disableConntrackInvalidCheck": True})
"""An ICMP error of nobody's is no connection's, and would be dropped before any policy sees it."""


class Cluster:
    """Two nodes and the world outside, which is also the switch between them."""

    def __init__(self, nodes: Mapping[str, Any], outside: Any, namespaces: Any, post: Any) -> None:
        self._nodes, self._outside, self._namespaces, self._post = nodes, outside, namespaces, post
        self._world: dict[Key, Resource] = {}
        self._pods: dict[Key, tuple[str, WorkloadEndpoint, Any]] = {}
        """Node, endpoint, and what CNI has made."""
        self._known: set[str] = set()
        """Addresses that the world outside has."""
        self._free: list[Any] = []
        """Namespaces of pods that are gone."""
        self._numbers = itertools.count()
        self._ears: dict[str, list[socket.socket]] = {"": [post.ear(outside, "br0")]}
        for name, node in nodes.items():
            self._ears[name] = list(_host_ears(node.host))

    def close(self) -> None:
        """Lets go of the sockets."""
        for ears in self._ears.values():
            for ear in ears:
                ear.close()

    async def become(self, world: World) -> None:
        """The cluster is as a world says."""
        wanted = {key: value for key, value in world.items() if isinstance(value, Pod) and _runs(value)}
        for key in [key for key, (_, endpoint, _) in self._pods.items() if _moved(endpoint, wanted.get(key))]:
            await self._detach(key)
        resources = {**world, Key("FelixConfiguration", "default"): _untracked(world)}
        put = [value for key, value in resources.items() if self._world.get(key) != value]
        gone = [ResourceGone(key, 1) for key in self._world if key not in resources]
        for node in self._nodes.values():
            node.post(put)
            node.engine.calculator.post(gone)
        self._world = resources
        for key, pod in wanted.items():
            if key not in self._pods:
                await self._attach(key, pod)
        for node in self._nodes.values():
            await node.settled()

    async def _attach(self, key: Key, pod: Pod) -> None:
        node, number = self._nodes[pod.spec.node_name], next(self._numbers)
        endpoint = WorkloadEndpoint(
            id=EndpointId("k8s", f"{key.namespace}/{key.name}", "eth0"), container_id=f"c-{number}",
            interface=f"cali{number}", addresses=tuple(each.ip for each in pod.status.pod_ips),
            namespace=key.namespace, pod=key.name,
        )  # fmt: skip
        self._part({*endpoint.addresses})
        await node.engine.endpoints.add(endpoint)
        made = node.plug(endpoint, self._free.pop() if self._free else hushed(self._namespaces(f"pod{number}")))
        await node.engine.endpoints.routed(endpoint)
        self._pods[key] = pod.spec.node_name, endpoint, made
        self._ears[str(key)] = [self._post.ear(made.namespace)]

    async def _detach(self, key: Key) -> None:
        name, endpoint, made = self._pods.pop(key)
        await self._nodes[name].engine.endpoints.remove(endpoint.id, endpoint.container_id)
        self._nodes[name].host.run("ip", "link", "delete", endpoint.interface)
        self._free.append(made.namespace)
        for ear in self._ears.pop(str(key)):
            ear.close()

    def sends(self, sent: Mapping[Packet, bool]) -> tuple[set[Packet], Counter[str]]:
        """Which packets arrive, and how many were counted, by the rules' origins; `sent` tells for each whether it
        should, so that nobody waits for what should not."""
        self._meet({address for packet in sent for address in (packet.source, packet.destination)})
        for node in self._nodes.values():
            node.forget({packet.source for packet in sent})
        before = self._counted()
        marks = {self._send(packet): packet for packet in sent}
        arrived = self._listen(marks, {mark for mark, packet in marks.items() if sent[packet]})
        return arrived, self._counted() - before

    def _counted(self) -> Counter[str]:
        """By both nodes' rules of policies and profiles, and at their ends."""
        found: Counter[str] = Counter()
        for node in self._nodes.values():
            listed = json.loads(node.host.run("nft", "-j", "list", "table", "inet", "calipy"))["nftables"]
            for rule in (entry["rule"] for entry in listed if "rule" in entry):
                _, _, origin = rule.get("comment", "").partition(" ")
                if origin.startswith(("policy ", "tier ", "profile ", "no profile ")):
                    found[origin] += sum(each["counter"]["packets"] for each in rule["expr"] if "counter" in each)
        return found

    def _meet(self, addresses: set[str]) -> None:
        """Whom nobody knows lives outside."""
        strangers = {each for each in addresses - self._known if not self._home(each)}
        _batch(self._outside, *(f"address add {_whole(each)} dev lo" for each in strangers))
        self._known |= strangers

    def _part(self, addresses: set[str]) -> None:
        """They live outside no more."""
        strangers = addresses & self._known
        _batch(self._outside, *(f"address delete {_whole(each)} dev lo" for each in strangers))
        self._known -= strangers

    def crosses(self, packet: Packet) -> bool:
        """True if it leaves its home, and not just for another place outside."""
        return self._home(packet.source) != self._home(packet.destination)

    def _home(self, address: str) -> str:
        """Whose an address is: a pod's key or a node's name; empty for somebody outside."""
        for name in NODES:
            if address in (*NODES[name], *TUNNELS[name]):
                return name
        return next((str(key) for key, (_, endpoint, _) in self._pods.items() if address in endpoint.addresses), "")

    def _namespace(self, address: str) -> Any:
        home = self._home(address)
        if home in self._nodes:
            return self._nodes[home].host
        return next((made.namespace for key, (_, _, made) in self._pods.items() if str(key) == home), self._outside)

    def _send(self, packet: Packet) -> bytes:
        word = WORDS.get(packet.protocol, "proto")
        port = packet.destination_port if word in ("tcp", "udp", "udplite", "sctp") else packet.protocol
        port = packet.icmp_type if word == "icmp" else port
        by_hand = packets.Packet("", word, port, packet.icmp_code, packet.source_port or None)
        ends = packet.source, packet.destination
        return bytes(self._post.send(self._namespace(packet.source), by_hand, ends))

    def _listen(self, marks: Mapping[bytes, Packet], wanted: set[bytes]) -> set[Packet]:
        """Until all that are wanted have come, and a moment longer for the others."""
        by_home: dict[str, set[bytes]] = {}
        for mark, packet in marks.items():
            by_home.setdefault(self._home(packet.destination), set()).add(mark)
        found: set[bytes] = set()
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and not wanted <= found:
            found |= self._heard(by_home)
        time.sleep(QUIET_S)
        return {marks[mark] for mark in found | self._heard(by_home)}

    def _heard(self, by_home: Mapping[str, set[bytes]]) -> set[bytes]:
        return {mark for home, mine in by_home.items() for ear in self._ears[home] for mark in packets.marks(ear, mine)}


def _whole(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _runs(pod: Pod) -> bool:
    return not pod.finished and not pod.spec.host_network


def _moved(endpoint: WorkloadEndpoint, pod: Pod | None) -> bool:
    return pod is None or endpoint.addresses != tuple(each.ip for each in pod.status.pod_ips)


def _untracked(world: World) -> FelixConfiguration:
    found = world.get(Key("FelixConfiguration", "default"))
    spec = found.spec if isinstance(found, FelixConfiguration) else {}
    return structs.replace(UNTRACKED, spec={**spec, **UNTRACKED.spec})


def _host_ears(host: Any) -> Iterator[socket.socket]:
    """What a host itself gets, behind all rules; each protocol by itself."""
    for family, *protocols in ((socket.AF_INET, 1, *OTHERS), (socket.AF_INET6, 58, *OTHERS)):
        for protocol in protocols:
            with inside(host.fd):
                made = socket.socket(family, socket.SOCK_RAW, protocol)
            made.setblocking(False)
            yield made


def hushed(namespace: Any, hook: str = "input") -> Any:
    """It gives no answers, for they would be counted too. A pod drops what it gets, but for that which finds its
    neighbours; a host hears what it gets, and keeps to itself what nobody's socket says."""
    rules = {
        "input": "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; drop",
        "output": "meta skuid 0 accept; icmp type destination-unreachable drop;"
        "icmpv6 type { destination-unreachable, parameter-problem } drop",
    }[hook]
    namespace.run("nft", f"table inet quiet {{ chain {hook} {{ type filter hook {hook} priority 0; {rules}; }}; }}")
    return namespace


def _expected(verdict: Verdict) -> Iterator[str]:
    """The origin of each rule that counts a packet, by what the evaluator has looked at."""
    yield from (_origin(step) for step in verdict.steps if not step.unmet and (step.rule is not None or _ends(step)))
    for decision in (verdict.egress, verdict.ingress):
        if decision is not None and decision.reason == "no profile":
            yield f"no profile {decision.direction}"


def _ends(step: Step) -> bool:
    """A tier that passes at its end has no rule for it."""
    return step.rule is None and step.action == "deny"


def _origin(step: Step) -> str:
    if step.profile:
        return f"profile {step.profile} {step.direction} {step.rule}"
    if step.policy:
        return f"policy {step.tier}/{step.policy} {step.direction} {step.rule}"
    return f"tier {step.tier} {step.direction}"


@pytest.fixture
async def cluster(felix: Any, namespaces: Any, post: Any) -> Any:
    outside = hushed(namespaces("out"))
    hosts = {name: hushed(namespaces(name), "output") for name in NODES}
    for space in (outside, *hosts.values()):
        space.run("sysctl", "-qw", *(f"net.{setting}" for setting in SETTINGS))
    outside.run("ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
    for space, link, last in ((outside, "br0", 254), (hosts["n1"], "up1", 1), (hosts["n2"], "up2", 2)):
        if space is not outside:
            outside.run("ip", "link", "add", f"to{last}", "type", "veth", "peer", "name", link, "netns", space.name)
            outside.run("ip", "link", "set", f"to{last}", "master", "br0", "up")
        addresses = f"10.9.0.{last}/24", f"fd00:9::{last:x}/64"
        _batch(space, f"link set {link} up", *(f"address add {address} dev {link}" for address in addresses))
    for name, other in (("n1", "n2"), ("n2", "n1")):
        _batch(
            hosts[name], *(f"route add default via {gateway}" for gateway in GATEWAY.values()),
            *(f"route add {block} via {via}" for block, via in zip(BLOCKS[other], NODES[other], strict=True)),
            *(f"address add {address} dev lo" for address in TUNNELS[name]),
        )  # fmt: skip
        _batch(outside, *(f"route add {block} via {via}" for block, via in zip(BLOCKS[name], NODES[name], strict=True)))
    made = Cluster({name: await felix(name, host) for name, host in hosts.items()}, outside, namespaces, post)
    yield made
    made.close()


def _batch(space: Any, *commands: str) -> None:
    """Of `ip`, each of the family of its addresses."""
    for flag, mine in (("-4", [c for c in commands if ":" not in c]), ("-6", [c for c in commands if ":" in c])):
        if mine:
            space.run("ip", flag, "-batch", "-", text="\n".join(mine) + "\n")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_the_kernel_does_what_each_row_says_and_counts_it_where_it_should(cluster: Cluster, case: Case) -> None:
    for scene in case.scenes:
        problems = await tried(cluster, scene.world, [row.packet for row in scene.rows])
        assert not problems, f"{scene.rows[0].where}:\n" + "\n".join(problems)


async def test_the_kernel_agrees_in_any_world(cluster: Cluster) -> None:
    for made_up in drawn(WORLDS):
        problems = await tried(cluster, made_up.world, made_up.packets)
        if problems:
            pytest.fail("\n".join([*problems, "", await smallest(cluster, made_up)]), pytrace=False)


def drawn(count: int) -> list[MadeUp]:
    """Worlds as hypothesis draws them; what fails here is made smaller by hand, for a try takes a cluster."""
    found: list[MadeUp] = []

    @seed(20)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(worlds())
    def draw(made_up: MadeUp) -> None:
        found.append(made_up)

    draw()
    return found


async def smallest(cluster: Cluster, made_up: MadeUp) -> str:
    """The world with whatever need not be there taken out, and one packet, as a case."""
    objects = list(made_up.objects)
    for value in made_up.objects:
        fewer = [each for each in objects if each is not value]
        if await tried(cluster, MadeUp(fewer, []).world, made_up.packets):
            objects = fewer
    world = MadeUp(objects, []).world
    for packet in made_up.packets:
        if await tried(cluster, world, [packet]):
            return story(objects, packet, evaluate(world, packet))
    return "none of these packets alone: " + ", ".join(map(str, made_up.packets))


async def tried(cluster: Cluster, world: World, sent: Iterable[Packet]) -> list[str]:
    """What the kernel has done otherwise than the evaluator says."""
    await cluster.become(world)
    said: dict[Packet, Verdict] = {}
    for packet in sent:
        if cluster.crosses(packet) and _answer(packet) not in said:
            said[packet] = evaluate(world, packet)
    arrived, counted = cluster.sends({packet: verdict.allowed for packet, verdict in said.items()})
    problems = [
        f"{packet} {'dropped' if verdict.allowed else 'came through'}: {verdict.deciding}"
        for packet, verdict in said.items()
        if (packet in arrived) != verdict.allowed
    ]
    expected = Counter(origin for verdict in said.values() for origin in _expected(verdict))
    for origin in sorted(counted.keys() | expected.keys()):
        if counted[origin] != expected[origin]:
            problems.append(f"{origin}: {counted[origin]} packets, not {expected[origin]}")
    return problems


def _answer(packet: Packet) -> Packet:
    """What would belong to the same connection, and not be judged."""
    return structs.replace(
        packet, source=packet.destination, destination=packet.source,
        source_port=packet.destination_port, destination_port=packet.source_port,
    )  # fmt: skip
