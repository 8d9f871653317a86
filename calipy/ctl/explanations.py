"""What `explain` shows people: the words and tables of an answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from calipy.console.formats import flow_text
from calipy.console.tables import Column, Part, Table
from calipy.explain.answers import Account, Answer, Looked, Near, Said
from calipy.explain.questions import End, Question
from calipy.explain.ways import Way
from calipy.model.policies import Direction

DIFFER = (
    "THE TWO ANSWERS DIFFER: one of them is wrong. Nodes do what RULES says. This is a fault of CalIPy: please report "
    "it, with what -o json prints."
)


class Judged(Struct, frozen=True, gc=False, kw_only=True):
    """One direction, by both answers."""

    direction: Direction
    node: str
    specification: str
    rules: str
    by: str


class Row(Struct, frozen=True, gc=False, kw_only=True):
    """A rule in words."""

    direction: str
    tier: str
    owner: str
    rule: str
    action: str
    unmet: str
    text: str


def parts(asked: Question, answers: Sequence[Answer], *, wide: bool) -> Iterator[Part]:
    """The tables; families of which all is the same share them."""
    for title, alike in _groups(asked, answers):
        first = alike[0]
        yield Table("decisions", title, tuple(_judged(asked, first)), _JUDGED)
        if near := first.nearest if wide else first.nearest[:1]:
            more = len(first.nearest) - len(near)
            others = f" (and {more} more, as near: -o wide)" if more else ""
            yield Table("nearest", f"Nearest to allowing it{others}", [_near(each) for each in near], _NEAREST)
        yield Table("ways", "Way", [(answer, _way(answer.way, hidden=answer.source_hidden)) for answer in alike], _WAYS)
        if wide:
            yield Table("steps", "Looked at, in this order", [_step(step) for step in first.steps], _STEPS)


_JUDGED: Sequence[Column[Judged]] = (
    Column("DIRECTION", lambda row: row.direction),
    Column("NODE", lambda row: row.node or "-"),
    Column("SPECIFICATION", lambda row: row.specification),
    Column("RULES", lambda row: row.rules),
    Column("DECIDED BY", lambda row: row.by),
)
_NEAREST: Sequence[Column[Row]] = (
    Column("POLICY", lambda row: row.owner),
    Column("RULE", lambda row: row.rule),
    Column("UNMET", lambda row: row.unmet),
    Column("TEXT", lambda row: row.text),
)
_WAYS: Sequence[Column[tuple[Answer, str]]] = (
    Column("FROM", lambda row: row[0].source),
    Column("TO", lambda row: row[0].destination),
    Column("WAY", lambda row: row[1]),
)
_STEPS: Sequence[Column[Row]] = (
    Column("DIRECTION", lambda row: row.direction),
    Column("TIER", lambda row: row.tier),
    Column("POLICY", lambda row: row.owner),
    Column("RULE", lambda row: row.rule),
    Column("ACTION", lambda row: row.action),
    Column("UNMET", lambda row: row.unmet),
    Column("TEXT", lambda row: row.text),
)


def _groups(asked: Question, answers: Sequence[Answer]) -> Iterator[tuple[str, list[Answer]]]:
    groups: dict[object, list[Answer]] = {}
    for answer in answers:
        alike = (answer.allowed, answer.agreed, tuple(map(str, _judged(asked, answer))), str(answer.nearest))
        groups.setdefault((*alike, str(answer.steps)), []).append(answer)
    for found in groups.values():
        families = " and ".join(f"IPv{answer.family}" for answer in found)
        port = f" {asked.port}" if asked.port else ""
        ends = f"{asked.source.name} -> {asked.destination.name}"
        yield f"{ends}, {asked.protocol}{port}, {families}: {_outcome(found[0])}", found


def _outcome(answer: Answer) -> str:
    if not answer.agreed:
        return "THE TWO ANSWERS DIFFER"
    if answer.allowed:
        return "allowed, but nobody has the address" if answer.way.means == "dropped" else "allowed"
    return "DENIED where it leaves" if answer.specification.ingress is None else "DENIED where it arrives"


def _judged(asked: Question, answer: Answer) -> Iterator[Judged]:
    one, other = answer.specification, answer.rules
    ends: tuple[tuple[Direction, End, str], ...] = (
        ("egress", asked.source, answer.way.source_node),
        ("ingress", asked.destination, answer.way.destination_node),
    )
    for direction, end, node in ends:
        said = _of(one, direction), _of(other, direction)
        words = [_why(each, direction, end) for each in said]
        by = words[0] if words[0] == words[1] else f"specification: {words[0]}\nrules: {words[1]}"
        yield Judged(direction=direction, node=node, specification=_word(said[0]), rules=_word(said[1]), by=by)


def _of(account: Account, direction: Direction) -> Said | None:
    return account.egress if direction == "egress" else account.ingress


def _word(said: Said | None) -> str:
    if said is None:
        return "-"
    return "allowed" if said.allowed else "DENIED"


_REASONS = {
    "own node": "a node always reaches its own pods",
    "no profile": "no tier and no profile has decided: what nobody allows is denied",
    "neighbour discovery": "neighbour discovery between a pod and its node always passes",
    "encapsulation": "pods may not send what looks like a tunnel's packets (allowVXLANPacketsFromWorkloads)",
    "defaultEndpointToHostAction": "defaultEndpointToHostAction of FelixConfiguration: from a pod to its own node",
}


def _why(said: Said | None, direction: Direction, end: End) -> str:
    if said is None:
        return "it doesn't get so far"
    if said.policy:
        return f"{said.policy} of tier {said.tier}, rule {said.rule}: {_text(said.text)}"
    if said.tier:
        return f"the end of tier {said.tier}: {_governing(said)} {end.name}, and no rule matches"
    if said.reason.startswith("profile "):
        rule = f", rule {said.rule}: {_text(said.text)}" if said.text is not None else f" allows all {direction}"
        return f"no policy has decided; {said.reason}{rule}"
    if said.reason == "not governed":
        return f"no policy governs {end.name}" + ("" if end.kind == "pod" else ": it is no pod")
    return _REASONS.get(said.reason, said.reason)


def _governing(said: Said) -> str:
    names = ", ".join(said.governing) or "its policies"
    return f"{names} {'governs' if len(said.governing) == 1 else 'govern'}"


def _text(rule: object) -> str:
    return flow_text(rule) if rule is not None else "-"


def _near(near: Near) -> Row:
    return _row(near, "allow")


def _step(step: Looked) -> Row:
    return _row(step, step.action)


def _row(found: Near | Looked, action: str) -> Row:
    matched = "-" if found.rule is None else "nothing: it matches"
    return Row(
        direction=found.direction, tier=found.tier or "-", owner=found.policy or found.profile or "(end of the tier)",
        rule="-" if found.rule is None else str(found.rule), action=action, unmet=", ".join(found.unmet) or matched,
        text=_text(found.text),
    )  # fmt: skip


def _way(way: Way, *, hidden: bool) -> str:
    here, there = way.source_node, way.destination_node
    both = f"from {here} to {there}"
    own = f"{way.block} is {way.holder}'s block"
    match way.means:
        case "nowhere":
            return "neither end is in the cluster: none of its nodes is asked"
        case "same node":
            return f"stays on {here}"
        case "VXLAN":
            return f"{both} through the VXLAN tunnel; {own}"
        case "same subnet":
            return f"{both} on their own subnet, without a tunnel; {own}"
        case "BGP":
            return f"{both} by BGP; {own}" + (f", so {there} announces the address alone" if way.borrowed else "")
        case "dropped":
            return f"to {way.holder}, of whose block {way.block} nobody has this address: it is dropped"
        case _:
            return _outside(here, there) + (f", under an address of {here}'s (natOutgoing)" if hidden else "")


def _outside(here: str, there: str) -> str:
    if here and there:
        return f"from {here} to {there} as the network between nodes has it"
    return f"from {here} into the network outside" if here else f"from the network outside to {there}"
