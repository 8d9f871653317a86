"""Compiled rules with one mistake in them, and whether rows, or any packets, show it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from zlib import crc32

from msgspec import Struct, structs

from calipy.explain.verdicts import Packet
from calipy.explain.walk import Broken, Objects, Ruleset
from calipy.felix.objects import Members, ObjectName
from calipy.felix.rules import names
from calipy.felix.rules.values import Chain, Element, InEndpoints, InPorts, InSet, Jump, Pass, Return, Rule
from calipy.resources.pods import Pod
from tests.cases.loading import NODES, OUTSIDE, Case, Row, Scene, family_of
from tests.cases.views import View, views

_STATIC = ("cali-nat", "cali-wl-to-host", names.FROM_WORKLOAD, names.TO_WORKLOAD, "filter-", "nat-", "raw-")
_BUILT_IN = ("masq-ipam-pools", "network-ip-pools", "all-hosts-net", "all-vxlan-net")
_MORE = (
    Packet(source="", destination="", protocol=6, source_port=40000, destination_port=7777),
    Packet(source="", destination="", protocol=17, source_port=40000, destination_port=7777),
    Packet(source="", destination="", protocol=132, source_port=40000, destination_port=80),
    Packet(source="", destination="", protocol=47),
)


class Mutation(Struct, frozen=True, gc=False):
    """One object as it must not be."""

    what: str
    """Told the same wherever it is the same mistake: one endpoint's chains are made as the other's are, and so are its
    elements, and the profiles of namespaces."""
    name: ObjectName
    value: Struct | None
    """None: it isn't there."""

    def among(self, share: int) -> bool:
        """True for one of so many."""
        return crc32(self.what.encode()) % share == 0

    def applied(self, objects: Objects) -> Ruleset:
        """All objects, this one wrong."""
        others = {name: value for name, value in objects.items() if name != self.name}
        return Ruleset({**others, self.name: self.value} if self.value is not None else others)


def mutations(objects: Objects) -> Iterator[Mutation]:
    """Of all that policy has brought: rules dropped, swapped, a lookup negated, a mark not cleared or not set; members
    and elements lost, or leading elsewhere. What every node has is tested elsewhere."""
    for name in sorted(objects):
        value = objects[name]
        if isinstance(value, Chain) and not name.name.startswith(_STATIC):
            for what, rules in _chains(value.rules):
                yield Mutation(_alike(f"{name.name}: {what}"), name, structs.replace(value, rules=rules))
        elif isinstance(value, Members) and not any(word in name.name for word in _BUILT_IN):
            for member in sorted(value.keys):
                yield Mutation(f"{name.name}: {member} lost", name, Members(value.keys - {member}))
                for wrong in _misled(member, value.keys):
                    yield Mutation(f"{name.name}: {member} is {wrong}", name, Members(value.keys - {member} | {wrong}))
        elif isinstance(value, Element):
            yield Mutation(_alike(f"{name.name}: lost"), name, None)
            for verdict in _others(name, value, objects):
                yield Mutation(_alike(f"{name.name}: {verdict}"), name, Element(verdict))


def _misled(member: str, keys: frozenset[str]) -> Iterator[str]:
    """The member of a map with the first other mask that the map has, if it has any."""
    address, space, mask = member.partition(" ")
    others = sorted({each.partition(" ")[2] for each in keys} - {mask}) if space else ()
    yield from (f"{address} {other}" for other in others[:1])


def _others(name: ObjectName, value: Element, objects: Objects) -> Iterator[Jump]:
    """The verdict of the first other mask of a run."""
    of_map = [(other, objects[other]) for other in sorted(objects) if other.name.split()[0] == name.name.split()[0]]
    others = [each.verdict for other, each in of_map if isinstance(each, Element) and other != name]
    yield from [verdict for verdict in others if isinstance(value.verdict, Jump) and isinstance(verdict, Jump)][:1]


def _alike(what: str) -> str:
    return re.sub(r"kns\.[a-z-]+", "kns.*", re.sub(r"calin\dp\d+( \S+(?=:))?", "cali*", what))


def _chains(rules: tuple[Rule, ...]) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    for at, rule in enumerate(rules):
        before, behind = rules[:at], rules[at + 1 :]
        said = f"{rule.matches} {rule.action} {rule.origin}"
        yield f"dropped: {said}", (*before, *behind)
        if behind and _differ(rule, behind[0]):
            swapped = f"{behind[0].matches} {behind[0].action} {behind[0].origin}"
            yield f"swapped: {said} and {swapped}", (*before, behind[0], rule, *behind[1:])
        if isinstance(rule.action, Pass):
            yield f"mark not set: {said}", (*before, structs.replace(rule, action=Return()), *behind)
        for number, match in enumerate(rule.matches):
            if isinstance(match, InSet | InEndpoints | InPorts):
                other = structs.replace(match, negated=not match.negated)
                matches = (*rule.matches[:number], other, *rule.matches[number + 1 :])
                yield f"negated {match}: {said}", (*before, structs.replace(rule, matches=matches), *behind)


def _differ(one: Rule, other: Rule) -> bool:
    """Parts of one rule may stand in any order."""
    return (one.action, one.origin) != (other.action, other.origin)


def probes(scene: Scene, view: View) -> list[Packet]:
    """Packets between this node's workloads and everybody, of all kinds that rows send, and some more."""
    addresses = {address for each in NODES.values() for address in each} | set(OUTSIDE)
    addresses |= {each.ip for pod in scene.world.values() if isinstance(pod, Pod) for each in pod.status.pod_ips}
    addresses |= {address for row in scene.rows for address in (row.packet.source, row.packet.destination)}
    here = [address for endpoint in view.state.endpoints.values() for address in endpoint.addresses]
    kinds = {structs.replace(row.packet, source="", destination="") for row in scene.rows} | set(_MORE)
    listed = {port for value in view.objects.values() for port in _ports(value)}
    kinds |= {
        structs.replace(kind, **{end: port})
        for kind in kinds if kind.destination_port
        for end in ("source_port", "destination_port")
        for port in listed
    }  # fmt: skip
    return [
        structs.replace(kind, source=source, destination=destination)
        for mine in here
        for other in sorted(addresses)
        if other != mine and family_of(other) == family_of(mine)
        for source, destination in ((mine, other), (other, mine))
        for kind in sorted(kinds, key=str)
        if kind.protocol != {4: 58, 6: 1}[family_of(mine)]
    ]  # fmt: skip


def _ports(value: Struct) -> Iterator[int]:
    """Of a set of ports, the first of each range."""
    for member in value.keys if isinstance(value, Members) else ():
        first = member.partition("-")[0]
        if first.isdecimal():
            yield int(first)


class Survey(Struct, frozen=True, gc=False):
    """What became of the mistakes in a case's rules."""

    caught: set[str]
    """A row shows them."""
    missed: dict[str, Packet]
    """No row shows them, but this packet does."""
    meaningless: set[str]
    """Nothing shows them."""


def survey(case: Case, share: int = 1) -> Survey:
    """One of `share` mistakes in all scenes, and as few of the probes."""
    found = Survey(set(), {}, set())
    for scene in case.scenes:
        for view in views(scene.world).values():
            _survey(found, scene, view, share)
    for what in found.caught:
        found.missed.pop(what, None)
    found.meaningless.difference_update(found.caught, found.missed)
    return found


def _survey(found: Survey, scene: Scene, view: View, share: int) -> None:
    shown = _Packets(view, _sent(scene.rows, view))
    more: _Packets | None = None
    for mistake in mutations(view.objects):
        if mistake.what in found.caught or not mistake.among(share):
            continue
        rules = mistake.applied(view.objects)
        if shown.telling(rules) is not None:
            found.caught.add(mistake.what)
        elif mistake.what not in found.missed:
            more = more or _Packets(view, probes(scene, view)[::share])
            packet = more.telling(rules)
            if packet is not None:
                found.missed[mistake.what] = packet
            else:
                found.meaningless.add(mistake.what)


class _Packets:
    """Packets, and how they fare where all is right."""

    def __init__(self, view: View, packets: list[Packet]) -> None:
        self._view = view
        self._right = [(packet, self._outcome(view.rules, packet)) for packet in packets]

    def telling(self, rules: Ruleset) -> Packet | None:
        """One that fares otherwise."""
        return next((packet for packet, right in self._right if self._outcome(rules, packet) != right), None)

    def _outcome(self, rules: Ruleset, packet: Packet) -> object:
        """What becomes of it on this node, and why."""
        try:
            walk = rules.walk(self._view.crosses(packet))
        except Broken as error:
            return str(error)
        return [(each.chain, each.end, each.by and each.by.rule.origin) for each in walk.endings]


def _sent(rows: Sequence[Row], view: View) -> list[Packet]:
    """The rows' packets that cross a node."""
    here = {address for endpoint in view.state.endpoints.values() for address in endpoint.addresses}
    return [row.packet for row in rows if {row.packet.source, row.packet.destination} & here]
