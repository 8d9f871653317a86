"""Every field of a rule and its negation, with real packets of every protocol in both families: policy_rules.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import pytest
import yaml

from calipy.model.selectables import NamedPort
from calipy.resources import kinds
from calipy.resources.endpoint_slices import SERVICE_NAME, Endpoint, EndpointPort, EndpointSlice
from calipy.resources.metadata import ObjectMeta
from tests.netns.felix.packets import Packet, Post, packet
from tests.unit.resources.objects import made

ADDRESSES = {
    "a": ("10.244.0.1", "fd00:10::1"),
    "b": ("10.244.0.2", "fd00:10::2"),
    "c": ("10.244.0.3", "fd00:10::3"),
    "out": ("10.9.0.9", "fd00:9::9"),
}
PORTS = (NamedPort("http", 6, 80), NamedPort("dns", 17, 53), NamedPort("sig", 132, 7777))
WORDS = {
    4: {"pods": "10.244.0.0/16", "all": "0.0.0.0/0", "icmp": "ICMP", "echo": "8", "other": "13", "otherfamily": "6"},
    6: {"pods": "fd00:10::/64", "all": '"::/0"', "icmp": "ICMPv6", "echo": "128", "other": "139", "otherfamily": "4"},
}


class Row(NamedTuple):
    """A line of the table."""

    direction: str
    rule: str
    through: tuple[str, ...]
    dropped: tuple[str, ...]


def rows(direction: str) -> Iterator[Row]:
    """The lines of one direction; a selector may have bars of its own."""
    for line in Path(__file__).with_name("policy_rules.txt").read_text().splitlines():
        if line.startswith(direction):
            head, through, dropped = line.rsplit("|", 2)
            yield Row(direction, head.partition("|")[2].strip(), tuple(through.split()), tuple(dropped.split()))


def filled(text: str, family: int) -> str:
    """A text with the words of a family in it."""
    length = 32 if family == 4 else 128
    nets = {name: f'"{found[0 if family == 4 else 1]}/{length}"' for name, found in ADDRESSES.items()}
    return Template(text).substitute(WORDS[family], **nets, family=str(family))


def policy(row: Row, family: int) -> Any:
    """The policy of a row: it allows what its only rule matches."""
    rule = {"action": "Allow", **yaml.safe_load(filled(row.rule, family))}
    way = row.direction.capitalize()
    spec = {"selector": f"app == '{'b' if way == 'Ingress' else 'a'}'", "types": [way], row.direction: [rule]}
    return made(kinds.BY_NAME["GlobalNetworkPolicy"], spec, "p")


@pytest.fixture
async def n1(felix: Any, world: Any, namespaces: Any) -> Any:
    host, outside = namespaces("n1"), namespaces("out")
    world.uplink(host, outside, "up0", ("10.9.0.1/24", "10.9.0.9/24"), ("fd00:9::1/64", "fd00:9::9/64"))
    outside.run("ip", "route", "add", "10.244.0.0/16", "via", "10.9.0.1")
    outside.run("ip", "-6", "route", "add", "fd00:10::/64", "via", "fd00:9::1")
    node = await felix("n1", host)
    for name in "abc":
        await node.add(name, *ADDRESSES[name], ports=PORTS if name != "c" else ())
    nets = [f"{ADDRESSES['out'][0]}/32", f"{ADDRESSES['out'][1]}/128"]
    place = made(kinds.BY_NAME["GlobalNetworkSet"], {"nets": nets}, "out", labels={"place": "out"})
    await node.put(place, web(4), web(6))
    node.spaces = {"out": outside, **{name: pod.namespace for name, pod in node.pods.items()}}
    return node


class Trial:
    """The packets of one row in one family, sent and heard."""

    def __init__(self, post: Post, node: Any, family: int) -> None:
        self._post, self._node, self._spaces, self._family = post, node, node.spaces, family
        self._ears = {name: post.ear(space) for name, space in self._spaces.items()}

    def wrong(self, row: Row) -> list[str]:
        """What the kernel did otherwise than the row says. Nothing of it is established yet."""
        self._node.forget(self._address(name) for name in ADDRESSES)
        sent: dict[bytes, tuple[str, str, bool]] = {}
        for texts, through in ((row.through, True), (row.dropped, False)):
            for text in texts:
                found, target = self._read(filled(text, self._family))
                ends = self._address(found.sender), self._address(target)
                mark = self._post.send(self._spaces[found.sender], found, ends)
                sent[mark] = text, target, through
        heard: set[bytes] = set()
        for name, ear in self._ears.items():
            here = {mark: through for mark, (_, target, through) in sent.items() if target == name}
            wanted = {mark for mark, through in here.items() if through}
            if here:
                heard |= self._post.heard(ear, wanted, here.keys() - wanted)
        return [
            f"{text} {'dropped' if through else 'came through'}"
            for mark, (text, _, through) in sent.items()
            if (mark in heard) != through
        ]

    def _address(self, name: str) -> str:
        return ADDRESSES[name][0 if self._family == 4 else 1]

    def _read(self, text: str) -> tuple[Packet, str]:
        """From whom, if it is said, to whom, if it isn't b."""
        *ends, last = text.split(">")
        found = packet(last)
        return found._replace(sender=ends[0] if ends else "a"), ends[1] if len(ends) > 1 else "b"


def web(family: int) -> EndpointSlice:
    """The endpoints of the service default/web: b's http and dns."""
    return EndpointSlice(
        metadata=ObjectMeta(name=f"web-{family}", namespace="default", labels={SERVICE_NAME: "web"}),
        address_type="IPv4" if family == 4 else "IPv6",
        endpoints=(Endpoint(addresses=(ADDRESSES["b"][0 if family == 4 else 1],)),),
        ports=(EndpointPort(name="http", port=80), EndpointPort(name="dns", protocol="UDP", port=53)),
    )


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("family", [4, 6])
async def test_what_a_rule_lets_through(n1: Any, post: Post, direction: str, family: int) -> None:
    trial, wrong = Trial(post, n1, family), []
    open_ = Row(direction, "", ("tcp:80", "c>tcp:80", "out>tcp:80", "a>out>tcp:80", "a>c>tcp:80"), ())
    assert trial.wrong(open_) == [], "neighbours are found, and without a policy everything passes"
    for row in rows(direction):
        await n1.put(policy(row, family))
        wrong += [f"{row.rule}: {what}" for what in trial.wrong(row)]
    assert "\n".join(wrong) == ""
    await n1.gone("GlobalNetworkPolicy", "p")
    assert trial.wrong(open_) == []
