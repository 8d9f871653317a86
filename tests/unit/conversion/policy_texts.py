"""Policies as a line of text each for their head and their rules, and the files of cases that are written in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from calipy.model.policies import Direction, Peer, Policy, PolicyRule
from calipy.model.sets import EndpointSet, PortSet, SelectorSet, protocol_name


class Case(NamedTuple):
    """A paragraph: what is given, and what it becomes."""

    name: str
    given: dict[str, Any]
    expected: str


def cases(path: Path) -> Iterator[Case]:
    """The paragraphs of a file."""
    for paragraph in path.read_text().split("\n== ")[1:]:
        name, _, rest = paragraph.partition("\n")
        given, _, expected = rest.partition("\n--\n")
        yield Case(name, yaml.safe_load(given), expected.strip("\n"))


def head_text(policy: Policy) -> str:
    """`np/shop/web tier default order 100 {selector}`."""
    everywhere = " everywhere" if policy.everywhere else ""
    return f"{policy.id} tier {policy.tier} order {policy.order:g} {{{policy.selector}}}{everywhere}"


def direction_lines(policy: Policy) -> Iterator[str]:
    """The directions that it governs, and below each its rules."""
    directions: tuple[Direction, ...] = ("ingress", "egress")
    for direction in directions:
        rules = policy.rules(direction)
        if rules is not None:
            yield direction
            yield from (f"  {rule_text(rule)}" for rule in rules)


def rule_text(rule: PolicyRule) -> str:
    """`0 allow protocol 6 from net 10.0.0.0/8 to port 80`."""
    icmp, not_icmp = (
        f"{wanted.type}" + ("" if wanted.code is None else f"/{wanted.code}") if wanted else None
        for wanted in (rule.icmp, rule.not_icmp)
    )
    asked = {
        "family": rule.family,
        "protocol": rule.protocol,
        "not protocol": rule.not_protocol,
        "icmp": icmp,
        "not icmp": not_icmp,
        "from": _peer_text(rule.source),
        "to": _peer_text(rule.destination),
    }
    return " ".join([f"{rule.number} {rule.action}", *(f"{k} {v}" for k, v in asked.items() if v is not None)])


def _peer_text(peer: Peer) -> str | None:
    parts = [*map(_set_text, peer.sets), *(f"not {_set_text(each)}" for each in peer.not_sets)]
    for words, nets in (("net", peer.nets), ("not net", peer.not_nets)):
        if nets is not None:
            parts.append(f"{words} {' '.join(nets.nets)}")
    wanted = ([_ports_text(peer.ports)] if peer.ports else []) + [_set_text(each) for each in peer.named_ports]
    if wanted:
        parts.append(" or ".join(wanted))
    if peer.not_ports:
        parts.append(f"not {_ports_text(peer.not_ports)}")
    parts += [f"not {_set_text(each)}" for each in peer.not_named_ports]
    return " and ".join(parts) or None


def _ports_text(ports: PortSet) -> str:
    return "port " + " ".join(str(a) if a == b else f"{a}-{b}" for a, b in ports.ranges)


def _set_text(found: SelectorSet | EndpointSet) -> str:
    if isinstance(found, SelectorSet):
        return f"{{{found.selector}}}"
    if found.service:
        return f"service {found.namespace}/{found.service}{'' if found.with_ports else ' without ports'}"
    return f"{{{found.selector}}}:{found.port}/{protocol_name(found.protocol)}"
