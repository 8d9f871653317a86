"""Tiers, passing, default actions and profiles with real packets, and what counted them: a counter in the kernel names
what has decided.

A scenario is written `tier(default action): policy[rules] policy[rules]; tier...; profile[rules]`, a rule as an action
and the port of TCP that it is for, none = everything. The profile is that of the pods' namespace, which allows all if
nothing else is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from calipy.felix.dialects import nftables as dialect
from calipy.felix.rules import origins
from calipy.netlink import attributes as nla
from calipy.netlink import nf_tables as nft
from calipy.netlink.socket import NETFILTER, NetlinkSocket
from calipy.resources import kinds
from tests.netns.felix.packets import Post, packet
from tests.unit.resources.objects import made

A, B = {4: "10.244.0.1", 6: "fd00:10::1"}, {4: "10.244.0.2", 6: "fd00:10::2"}

# scenario -> packets, each with what becomes of it and which rules had a say, as their counters tell
SCENARIOS: dict[str, dict[str, str]] = {
    "": {"tcp:80": "through: profile kns.default 0"},
    "default(deny): p[allow 80]": {
        "tcp:80": "through: policy default/gnp/p 0",
        "tcp:81": "dropped: tier default",
    },
    "default(deny): p[]": {"tcp:80": "dropped: tier default"},
    "default(deny): p[deny 80, allow 80, allow]": {
        "tcp:80": "dropped: policy default/gnp/p 0",
        "tcp:81": "through: policy default/gnp/p 2",
    },
    "default(deny): p[deny 80] q[allow]": {
        "tcp:80": "dropped: policy default/gnp/p 0",
        "tcp:81": "through: policy default/gnp/q 0",
    },
    "default(deny): p[allow 80] q[deny 80] r[allow 81]": {
        "tcp:80": "through: policy default/gnp/p 0",
        "tcp:81": "through: policy default/gnp/r 0",
        "tcp:82": "dropped: tier default",
    },
    "default(deny): p[log, log 80, allow 80]": {
        "tcp:80": "through: policy default/gnp/p 0, policy default/gnp/p 1, policy default/gnp/p 2",
        "tcp:81": "dropped: policy default/gnp/p 0, tier default",
    },
    "default(deny): p[pass]": {"tcp:80": "through: policy default/gnp/p 0, profile kns.default 0"},
    "one(deny): p[pass 80, allow 81]; default(deny): q[allow 80]": {
        "tcp:80": "through: policy one/gnp/p 0, policy default/gnp/q 0",
        "tcp:81": "through: policy one/gnp/p 1",
        "tcp:82": "dropped: tier one",
    },
    "one(deny): p[pass 80] q[deny]; default(deny): r[allow]": {
        "tcp:80": "through: policy one/gnp/p 0, policy default/gnp/r 0",
        "tcp:81": "dropped: policy one/gnp/q 0",
    },
    "one(deny): p[deny 81] q[pass 80]; default(deny): r[allow]": {
        "tcp:80": "through: policy one/gnp/q 0, policy default/gnp/r 0",
        "tcp:81": "dropped: policy one/gnp/p 0",
        "tcp:82": "dropped: tier one",
    },
    "one(deny): p[pass]; two(deny): q[pass 80]; default(deny): r[allow]": {
        "tcp:80": "through: policy one/gnp/p 0, policy two/gnp/q 0, policy default/gnp/r 0",
        "tcp:81": "dropped: policy one/gnp/p 0, tier two",
    },
    "one(pass): p[deny 80]; default(deny): q[allow 81]": {
        "tcp:80": "dropped: policy one/gnp/p 0",
        "tcp:81": "through: policy default/gnp/q 0",
        "tcp:82": "dropped: tier default",
    },
    "one(pass): p[allow 80]": {
        "tcp:80": "through: policy one/gnp/p 0",
        "tcp:81": "through: profile kns.default 0",
    },
    "one(pass): p[pass 80, deny 81] q[deny 80, deny 82]; default(deny): r[allow]": {
        "tcp:80": "through: policy one/gnp/p 0, policy default/gnp/r 0",
        "tcp:81": "dropped: policy one/gnp/p 1",
        "tcp:82": "dropped: policy one/gnp/q 1",
        "tcp:83": "through: policy default/gnp/r 0",
    },
    "one(pass): p[pass 80] q[deny 81]; profile[deny 80, allow 82]": {
        "tcp:80": "dropped: policy one/gnp/p 0, profile kns.default 0",
        "tcp:81": "dropped: policy one/gnp/q 0",
        "tcp:82": "through: profile kns.default 1",
        "tcp:83": "dropped: no profile",
    },
    "profile[]": {"tcp:80": "dropped: no profile"},
}  # fmt: skip


def rule(text: str) -> dict[str, Any]:
    action, _, port = text.partition(" ")
    asked = {"protocol": "TCP", "destination": {"ports": [int(port)]}} if port else {}
    return {"action": action.capitalize(), **asked}


def rules(text: str) -> list[dict[str, Any]]:
    return [rule(part) for part in text.split(", ") if part]


def resources(scenario: str, direction: str) -> Iterator[Any]:
    """Tiers, policies and the namespace's profile."""
    for number, part in enumerate(scenario.split("; ") if scenario else ()):
        if part.startswith("profile"):
            given = rules(part.removeprefix("profile[").removesuffix("]"))
            other = "egress" if direction == "ingress" else "ingress"
            yield made(kinds.BY_NAME["Profile"], {direction: given, other: rules("allow")}, "kns.default")
            continue
        head, _, policies = part.partition(": ")
        tier, default = head.removesuffix(")").split("(")
        if tier != "default":
            yield made(kinds.BY_NAME["Tier"], {"order": 100 + number, "defaultAction": default.capitalize()}, tier)
        selector = f"app == '{'b' if direction == 'ingress' else 'a'}'"
        for order, (name, text) in enumerate(re.findall(r"(\w+)\[(.*?)\]", policies)):
            spec = {
                "tier": tier, "order": order, "selector": selector, "types": [direction.capitalize()],
                direction: rules(text),
            }  # fmt: skip
            yield made(kinds.BY_NAME["GlobalNetworkPolicy"], spec, name)


def counters(node: Any) -> Counter[str]:
    """What each counter in the kernel stands for, and how often it has counted."""
    found: Counter[str] = Counter()
    with NetlinkSocket.open(NETFILTER, namespace=node.host.fd) as netfilter:
        for body in netfilter.dump(nft.get_rules("calipy")):
            record = nft.parse_rule(body)
            told = dialect.origin_of(record.user_data)
            decider = origins.decider(told, node.engine.dataplane.state)
            if decider is not None:
                (counter,) = [part for part in record.expressions if part.name == "counter"]
                found[text(decider)] += nla.as_be64(nla.attributes(counter.data)[2])
    return found


def text(decider: origins.Decider) -> str:
    who = f"{decider.tier}/{decider.policy}" if decider.policy else decider.profile or decider.tier
    number = "" if decider.number is None else f" {decider.number}"
    return f"{decider.direction} {decider.kind} {who}{number}".rstrip()


@pytest.fixture
async def n1(felix: Any) -> Any:
    node = await felix("n1")
    for name, family in (("a", A), ("b", B)):
        await node.add(name, family[4], family[6])
    return node


@pytest.mark.parametrize("direction", ["ingress", "egress"])
async def test_who_decides(n1: Any, post: Post, direction: str) -> None:
    ear, wrong = post.ear(n1.pods["b"].namespace), []
    for family in (4, 6):
        mark = post.send(n1.pods["a"].namespace, packet("tcp:80"), (A[family], B[family]))
        assert post.heard(ear, {mark}, set()) == {mark}, "neighbours are found"
    for scenario, packets in SCENARIOS.items():
        given = list(resources(scenario, direction))
        await n1.put(*given)
        for said, expected in packets.items():
            for family in (4, 6):
                verdict, _, names = expected.partition(": ")
                n1.forget([A[family]])
                before = counters(n1)
                mark = post.send(n1.pods["a"].namespace, packet(said), (A[family], B[family]))
                wanted = {mark} if verdict == "through" else set()
                heard = "through" if post.heard(ear, wanted, {mark} - wanted) else "dropped"
                counted = {name for name in counters(n1) - before if name.startswith(direction)}
                if (heard, counted) != (verdict, {f"{direction} {name}" for name in names.split(", ")}):
                    wrong.append(f"{scenario}: {said}: {expected}, but {heard}: {', '.join(sorted(counted))}")
        for one in given:
            await n1.gone(type(one).__name__, one.metadata.name)
    assert "\n".join(wrong) == ""
