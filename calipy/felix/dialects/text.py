"""Neutral rules as one line of text for people, close to what nft would say."""

from __future__ import annotations

from calipy.felix.rules.values import (
    Address,
    Chain,
    ConnectionState,
    Dispatch,
    Family,
    Goto,
    IcmpType,
    InSet,
    Interface,
    Jump,
    LocalSource,
    Masquerade,
    Match,
    OwnSource,
    Ports,
    Protocol,
    Rule,
    SourceNat,
)

_ENDS = {"source": "from", "destination": "to"}
_PROTOCOLS = {1: "icmp", 4: "ipip", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}


def rule_text(rule: Rule) -> str:
    """`in cali* · jump cali-from-wl-dispatch   # static workload`."""
    matches = " ".join(map(_match, rule.matches))
    return f"{matches + ' ' if matches else ''}{_action(rule)}  # {rule.origin}"


def chain_text(name: str, chain: Chain) -> str:
    """A chain and its rules, one a line."""
    at = f" ({chain.hook.type} {chain.hook.hook} {chain.hook.priority})" if chain.hook else ""
    return "\n".join([f"{name}{at}:", *(f"  {rule_text(rule)}" for rule in chain.rules)])


def _match(match: Match) -> str:
    match match:
        case Interface(direction=direction, name=name, prefix=prefix, negated=negated):
            return f"{_not(negated)}{direction} {name}{'*' if prefix else ''}"
        case Family(family=family):
            return f"ipv{family}"
        case Address() | InSet() | OwnSource():
            return _address(match)
        case Protocol(number=number, negated=negated):
            return f"{_not(negated)}{_PROTOCOLS.get(number, number)}"
        case Ports(side=side, first=first, last=last):
            return f"{_ENDS[side]} port {_range(first, last)}"
        case IcmpType(first=first, last=last):
            return f"type {_range(first, last)}"
        case ConnectionState(states=states):
            return f"state {','.join(states)}"
        case LocalSource():
            return "from this node"


def _address(match: Address | InSet | OwnSource) -> str:
    match match:
        case Address(side=side, address=address):
            found = f"{_ENDS[side]} {address}"
        case InSet(side=side, set=name):
            found = f"{_ENDS[side]} @{name}"
        case OwnSource(set=name):
            found = f"in and from @{name}"
    return _not(match.negated) + found


def _action(rule: Rule) -> str:
    match rule.action:
        case Jump(chain=chain):
            return f"jump {chain}"
        case Goto(chain=chain):
            return f"goto {chain}"
        case Dispatch(map=name, direction=direction):
            return f"{direction} map @{name}"
        case Masquerade(ports=ports):
            return f"masquerade{_ports(ports)} fully-random"
        case SourceNat(address=address, ports=ports):
            return f"snat to {address}{_ports(ports)} fully-random"
        case action:
            return type(action).__name__.lower()


def _not(negated: bool) -> str:
    return "not " if negated else ""


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _ports(ports: tuple[int, int] | None) -> str:
    return f" ports {_range(*ports)}" if ports else ""
