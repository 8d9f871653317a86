"""Policies and labels that change all the time, for tests: few enough that they come round, each of one direction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from calipy.resources import (
    global_network_policies,
    kubernetes_network_policies,
    namespaces,
    network_policies,
    tiers,
)
from calipy.resources.metadata import Key, Kind, decode
from tests.lab.witnessing import History

PORTS = (7777, 7778)
COLOURS, TEAMS, ZONES = ("red", "green", "blue"), ("a", "b"), ("x", "y")
SERVER, CLIENT = "role == 'server'", "role == 'client'"

_Variant = Mapping[str, Any]


def _from(selector: str, action: str = "Allow", *ports: int) -> dict[str, Any]:
    rule: dict[str, Any] = {"action": action, "source": {"selector": selector} if selector else {}}
    if ports:
        rule |= {"protocol": "UDP", "destination": {"ports": list(ports)}}
    return rule


def _to(selector: str, action: str = "Allow", *ports: int) -> dict[str, Any]:
    rule: dict[str, Any] = {"action": action, "destination": {"selector": selector} if selector else {}}
    if ports:
        rule["protocol"] = "UDP"
        rule["destination"]["ports"] = list(ports)
    return rule


def _peer(**labels: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels}}


def resource(kind: Kind[Any], document: Mapping[str, Any]) -> Any:
    """A resource from metadata and spec."""
    head = {"apiVersion": f"{kind.group}/{kind.version}", "kind": kind.kind}
    return decode(kind, msgspec.json.encode({**head, **document}))


_UDP_PORTS = [{"protocol": "UDP", "port": port} for port in PORTS]
_POLICIES: Mapping[tuple[Kind[Any], str, str], Sequence[_Variant | None]] = {
    (global_network_policies.KIND, "gate.in", ""): [
        {"tier": "gate", "selector": SERVER, "types": ["Ingress"], "ingress": rules}
        for rules in (
            [{"action": "Pass"}],
            [_from("colour == 'red'", "Deny"), {"action": "Pass"}],
            [_from("team == 'a'", "Allow", PORTS[1]), {"action": "Pass"}],
            [_from("colour in {'red', 'green'}", "Pass"), _from("team == 'b'", "Deny")],
        )
    ] + [None],
    (global_network_policies.KIND, "gate.out", ""): [
        {"tier": "gate", "selector": CLIENT, "types": ["Egress"], "egress": rules}
        for rules in ([{"action": "Pass"}], [_to("zone == 'y'", "Deny", PORTS[1]), {"action": "Pass"}])
    ] + [None],
    (network_policies.KIND, "in", "default"): [
        {"order": 10, "selector": SERVER, "types": ["Ingress"], "ingress": rules}
        for rules in (
            [_from("colour == 'blue'"), _from("colour == 'green'", "Allow", PORTS[0])],
            [_from("team == 'a' && has(colour)")],
            [{"action": "Deny", "protocol": "UDP", "destination": {"ports": [PORTS[1]]}}, _from("role == 'client'")],
            [{"action": "Allow", "source": {"namespaceSelector": "env == 'prod'", "selector": "team == 'b'"}}],
        )
    ],
    (network_policies.KIND, "out", "default"): [
        {"order": 10, "selector": "role == 'client' && colour != 'green'", "types": ["Egress"], "egress": rules}
        for rules in ([{"action": "Allow"}], [_to("zone == 'x'")], [_to("role == 'server'", "Allow", PORTS[0])])
    ] + [None],
    (kubernetes_network_policies.KIND, "in", "default"): [
        {"podSelector": {"matchLabels": {"role": "server"}}, "policyTypes": ["Ingress"], "ingress": rules}
        for rules in (
            [],
            [{"from": [_peer(colour="red")], "ports": _UDP_PORTS}],
            [{"from": [_peer(team="b")], "ports": _UDP_PORTS[:1]}, {"from": [_peer(colour="green")]}],
        )
    ] + [None],
}  # fmt: skip


class Churn:
    """Writes one change after the other, `every_s`."""

    def __init__(self, history: History, seed: int, every_s: float = 0.03) -> None:
        self._history, self._random, self._every_s = history, random.Random(seed), every_s
        self.relabelled: dict[Key, Callable[[], Mapping[str, str]]] = {}
        """Pods whose labels change: key -> new ones."""
        self.writes = 0

    async def begin(self) -> None:
        """The first variant of each policy."""
        tier = {"metadata": {"name": "gate"}, "spec": {"order": 10, "defaultAction": "Deny"}}
        await self._history.put(tiers.KIND, resource(tiers.KIND, tier))
        for what, variants in _POLICIES.items():
            await self._policy(what, variants[0])

    async def run(self) -> None:
        """Without end."""
        while True:
            await self._change()
            self.writes += 1
            await asyncio.sleep(self._every_s)

    async def _change(self) -> None:
        chance = self._random.random()
        if chance < 0.4 and self.relabelled:
            key, labels = self._random.choice(list(self.relabelled.items()))
            await self._history.relabel(key, labels())
        elif chance < 0.5:
            env = self._random.choice(("prod", "test"))
            await self._history.relabel(Key(namespaces.KIND.name, "default"), {"env": env})
        else:
            what = self._random.choice(list(_POLICIES))
            await self._policy(what, self._random.choice(_POLICIES[what]))

    async def _policy(self, what: tuple[Kind[Any], str, str], spec: _Variant | None) -> None:
        kind, name, namespace = what
        if spec is None:
            await self._history.remove(kind, name, namespace)
            return
        metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
        await self._history.put(kind, resource(kind, {"metadata": metadata, "spec": spec}))

    def client(self) -> dict[str, str]:
        """Labels of a pod that sends."""
        choice = self._random.choice
        return {"role": "client", "colour": choice(COLOURS), "team": choice(TEAMS)}

    def server(self) -> dict[str, str]:
        """Labels of a pod that hears."""
        return {"role": "server", "zone": self._random.choice(ZONES)}
