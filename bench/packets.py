"""What our rules cost a packet: nanoseconds of one forwarded datagram from pod to pod, against bare forwarding.

veth carries a packet through the whole forward path within send(), so `blast` times send(). Minima over many small
batches, and over rounds in which all take turns: what else the machine does comes in between, and is left out. A new
flow has no answer yet, so that every packet of it is judged; an established one has.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench.namespaces import Namespace, namespace
from bench.rows import Row, row
from calipy.felix.calc import runs
from calipy.felix.calc.change import NodeState, SetKey, everything
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.drivers.nftables import NftablesDriver
from calipy.felix.objects import Alter, Members, Op, Put
from calipy.felix.rules import names
from calipy.felix.rules.compile import STATIC, RulesPlanner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Peer, Policy, PolicyId, PolicyRule, Profile, TierBinding
from calipy.model.sets import (
    ALL_HOSTS,
    MASQUERADED_IP_POOLS,
    NETWORK_IP_POOLS,
    VXLAN_HOSTS,
    SelectorSet,
    SetId,
    SetKind,
)
from calipy.netlink.socket import NETFILTER, NetlinkSocket, inside

_ROUNDS, _BATCHES = 8, 150
_POLICIES, _PEERS = 10, 1_000
_ADDRESSES = {4: {"a": "10.244.0.1", "b": "10.244.0.2"}, 6: {"a": "fd00:10:244::1", "b": "fd00:10:244::2"}}
_POOLS = {4: "10.244.0.0/15", 6: "fd00:10:244::/48"}
_ALLOW = (PolicyRule(action="allow", number=0),)
_OPEN = Profile(name="kns.shop", ingress=_ALLOW, egress=_ALLOW)
_RAW, _NAT = "raw-PREROUTING", "nat-POSTROUTING"

Install = Callable[[Namespace], None]


def rows() -> Iterator[Row]:
    """Wholes against bare forwarding, then parts, then what was weighed against them."""
    with namespace("host") as host, namespace("a") as a, namespace("b") as b, tempfile.TemporaryDirectory() as place:
        pods = {"a": a, "b": b}
        _wire(host, pods)
        blast = Path(place) / "blast"
        source = Path(__file__).with_name("blast.c")
        subprocess.run(["cc", "-O2", "-o", str(blast), str(source)], check=True)
        bench = _Bench(host, pods, blast)
        new = bench.costs(_INSTALLS, established=False)
        old = bench.costs(_INSTALLS, established=True)
        new6 = bench.costs({name: _INSTALLS[name] for name in ("bare", "1")}, established=False, family=6)
    both = (("new", new, "<= 1.4"), ("established", old, "<= 1.25"))
    for flow, found, aim in both:
        for count in ("1", "100", "1000"):
            text = f"packet of {flow} flow, 10 policies, endpoints: {count}"
            yield row(text, "ns", found[count], found["bare"], "forwarding", aim)
    yield row("packet of new flow, 10 policies, IPv6", "ns", new6["1"], new6["bare"], "forwarding")
    for flow, found, _ in both:
        for part, without in _PARTS.items():
            yield row(f"of that, {flow} flow: {part}", "ns", found["1"] - found[without])
    for flow, found, _ in both:
        for instead, name in _INSTEAD.items():
            yield row(f"{flow} flow: {instead}", "ns", found[name], found["bare"], "forwarding")


class _Bench:
    """Two pods on a host, and what sends between them."""

    def __init__(self, host: Namespace, pods: Mapping[str, Namespace], blast: Path) -> None:
        self._host, self._pods, self._blast = host, pods, blast

    def costs(self, installs: Mapping[str, Install], *, established: bool, family: int = 4) -> dict[str, float]:
        """Nanoseconds of a packet under each of these rule sets."""
        found: dict[str, list[float]] = {name: [] for name in installs}
        for _ in range(_ROUNDS):
            for name, install in installs.items():
                self._host.run("nft", "flush", "ruleset")
                install(self._host)
                found[name].append(self._cost(established, family))
        self._host.run("nft", "flush", "ruleset")
        return {name: min(costs) for name, costs in found.items()}

    def _cost(self, established: bool, family: int) -> float:
        target = _ADDRESSES[family]["b"]
        with inside(self._pods["b"].fd):
            sink = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        with sink:
            sink.bind((target, 0))
            sink.settimeout(5)
            arguments = [str(sink.getsockname()[1]), str(_BATCHES), *(["established"] if established else [])]
            argv = self._pods["a"].argv("nice", "-n", "-15", str(self._blast), target, *arguments)
            sender = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            if established:
                sink.sendto(b"yes", sink.recvfrom(100)[1])
            told, _ = sender.communicate()
        if sender.returncode:
            raise RuntimeError(f"{' '.join(argv)}: status {sender.returncode}: nothing gets through")
        return float(told.split()[0])


def _wire(host: Namespace, pods: Mapping[str, Namespace]) -> None:
    """The pods' links as CNI makes them, neighbours known."""
    for name, pod in pods.items():
        link = f"cali{name}"
        host.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        for space, device in ((host, link), (pod, "eth0")):
            space.run("sysctl", "-qw", f"net.ipv6.conf.{device}.accept_dad=0")
            space.run("ip", "link", "set", device, "up")
        ends = json.loads(host.run("ip", "-j", "link", "show", link) or "[]")
        inner = json.loads(pod.run("ip", "-j", "link", "show", "eth0"))[0]["address"]
        for family, gateway in ((4, "169.254.1.1"), (6, "fe80::1")):
            own, way = _ADDRESSES[family][name], f"-{family}"
            pod.run("ip", "addr", "add", own, "dev", "eth0", *(["nodad"] if family == 6 else []))
            if family == 4:
                pod.run("ip", "route", "add", gateway, "dev", "eth0")
            pod.run("ip", way, "neigh", "replace", gateway, "lladdr", ends[0]["address"], "dev", "eth0")
            pod.run("ip", way, "route", "add", "default", "via", gateway, "dev", "eth0")
            host.run("ip", way, "route", "add", own, "dev", link)
            host.run("ip", way, "neigh", "replace", own, "lladdr", inner, "dev", link)
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


# --- rule sets ---


def _policies() -> list[Policy]:
    """Each asks for the source in a set of its own; a is in the last."""
    found = []
    for number in range(_POLICIES):
        peer = Peer(sets=(SelectorSet(SetId(f"s:{number}"), "x"),))
        rule = PolicyRule(action="allow", number=0, source=peer)
        id_ = PolicyId("np", "shop", f"p{number}")
        found.append(Policy(id=id_, tier="default", order=number, selector="x", ingress=(rule,)))
    return found


def _members(number: int, family: int) -> frozenset[str]:
    own = frozenset({_ADDRESSES[family]["a"]} if number == _POLICIES - 1 else ())
    if family == 4:
        return own | {f"10.{60 + number}.{place >> 8}.{place & 255}" for place in range(_PEERS)}
    return own | {f"fd00:{number}::{place:x}" for place in range(_PEERS)}


def _state(endpoints: int, policies: list[Policy], settings: FelixSettings) -> NodeState:
    ids = tuple(policy.id for policy in policies)
    governed = (TierBinding(tier="default", default_action="deny", ingress=ids),) if ids else ()
    found = [
        _endpoint(f"{number:011x}", (f"10.245.{number >> 8}.{number & 255}", f"fd00:10:244:1::{number:x}"), governed)
        for number in range(endpoints - 1)
    ]
    found.append(_endpoint("a", tuple(_ADDRESSES[family]["a"] for family in (4, 6)), ()))
    found.append(_endpoint("b", tuple(_ADDRESSES[family]["b"] for family in (4, 6)), governed))
    members = {SetKey(SetId(f"s:{n}"), family): _members(n, family) for n in range(len(ids)) for family in (4, 6)}
    kinds: dict[SetKey, SetKind] = dict.fromkeys(members, "addresses")
    for family, pool in _POOLS.items():
        for id_ in (NETWORK_IP_POOLS, MASQUERADED_IP_POOLS):
            kinds[SetKey(id_, family)], members[SetKey(id_, family)] = "prefixes", frozenset({pool})
        for id_ in (ALL_HOSTS, VXLAN_HOSTS):
            kinds[SetKey(id_, family)], members[SetKey(id_, family)] = "addresses", frozenset()
    sets = {key: (kind, members[key]) for key, kind in kinds.items()}
    in_force = {policy.id: policy for policy in policies}
    merged = runs.compute({each.id: each for each in found}, in_force, sets, (4, 6))
    sets.update(merged.sets)
    return NodeState(
        settings=settings, endpoints=merged.endpoints, profiles={_OPEN.name: _OPEN}, policies=in_force,
        runs=merged.runs, sets={key: kind for key, (kind, _) in sets.items()},
        members={key: each for key, (_, each) in sets.items()},
    )  # fmt: skip


def _endpoint(name: str, addresses: tuple[str, ...], tiers: tuple[TierBinding, ...]) -> WorkloadEndpoint:
    return WorkloadEndpoint(
        id=EndpointId("k8s", f"shop/{name}", "eth0"), container_id=name, interface=f"cali{name}", addresses=addresses,
        tiers=tiers, profiles=(_OPEN.name,),
    )  # fmt: skip


def _ours(endpoints: int = 1, *, policies: bool = True, without: str = "", invalid: bool = True) -> Install:
    """Our rules as the agent writes them, less one base chain perhaps."""

    def install(host: Namespace) -> None:
        settings = FelixSettings(disable_conntrack_invalid_check=not invalid)
        state = _state(endpoints, _policies() if policies else [], settings)
        ops: list[Op] = []
        for plan in RulesPlanner().plans(everything(state), state):
            for name, value in (plan.objects or {}).items() if plan is not None else ():
                if isinstance(value, Members):
                    ops.append(Alter(STATIC, name, value.keys, frozenset()))
                elif name != names.chain(without):
                    ops.append(Put(STATIC, name, value))
        with NetlinkSocket.open(NETFILTER, namespace=host.fd) as netfilter:
            driver = NftablesDriver(netfilter, own=False)
            outcome = driver.apply(tuple(ops))
        if outcome.refusals or outcome.resync:
            raise RuntimeError(f"the kernel refuses: {outcome}")

    return install


def _then(install: Install, *lines: str) -> Install:
    """Our rules, and then what somebody writes by hand."""

    def both(host: Namespace) -> None:
        install(host)
        host.run("nft", "-f", "-", text="\n".join(lines) + "\n")

    return both


def _nothing(host: Namespace) -> None:
    """No rules at all."""


_CONNTRACK = (
    "add table inet t",
    "add chain inet t f { type filter hook forward priority 0; }",
    "add rule inet t f ct state established,related accept",
)
_FIB = (
    f"add chain inet calipy {_RAW} {{ type filter hook prerouting priority -300; }}",
    f'add rule inet calipy {_RAW} iifname "cali*" fib saddr . iif oif missing drop',
)
_MERGED = (
    "add map inet calipy merged { type ipv4_addr : verdict; }",
    "add element inet calipy merged { "
    + ", ".join(f"{member} : accept" for number in range(_POLICIES) for member in sorted(_members(number, 4)))
    + " }",
    "flush chain inet calipy cali-tw-calib",
    "add rule inet calipy cali-tw-calib ip saddr vmap @merged",
    "add rule inet calipy cali-tw-calib counter drop",
)
_INSTALLS: dict[str, Install] = {
    "bare": _nothing,
    "1": _ours(),
    "100": _ours(100),
    "1000": _ours(1000),
    "no policies": _ours(policies=False),
    "no spoof": _ours(without=_RAW),
    "no invalid": _ours(invalid=False),
    "no nat": _ours(without=_NAT),
    "fib": _then(_ours(without=_RAW), *_FIB),
    "merged": _then(_ours(), *_MERGED),
    "conntrack": _then(_nothing, *_CONNTRACK),
}
_PARTS = {
    "10 policies": "no policies",
    "spoof protection": "no spoof",
    "INVALID drop": "no invalid",
    "natOutgoing chain": "no nat",
}
_INSTEAD = {
    "sources by reverse path": "fib",
    "policies in one map, by hand": "merged",
    "conntrack and one accept": "conntrack",
}
