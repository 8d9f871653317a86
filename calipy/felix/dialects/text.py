"""Neutral rules as one line of text for people, close to what nft would say."""

from __future__ import annotations

from calipy.felix.rules.values import (
    Address,
    AddressMatch,
    Ask,
    Chain,
    ClearMark,
    ConnectionState,
    Dispatch,
    Family,
    Goto,
    IcmpCode,
    IcmpType,
    InEndpoints,
    InPorts,
    InSet,
    Interface,
    Jump,
    LocalSource,
    Log,
    Marked,
    Masquerade,
    Match,
    OwnSource,
    Pass,
    Ports,
    Protocol,
    Rate,
    Rule,
    SourceNat,
    TransportMatch,
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
        case Address() | InSet() | InEndpoints() | OwnSource():
            return _not(match.negated) + _address(match)
        case Protocol(number=number, negated=negated):
            return f"{_not(negated)}{_PROTOCOLS.get(number, number)}"
        case Ports() | InPorts() | IcmpType() | IcmpCode():
            return _transport(match)
        case ConnectionState(states=states):
            return f"state {','.join(states)}"
        case LocalSource():
            return "from this node"
        case Marked(bits=bits):
            return f"mark {bits:#x}"


def _address(match: AddressMatch) -> str:
    match match:
        case Address(side=side, address=address):
            return f"{_ENDS[side]} {address}"
        case InSet(side=side, set=name):
            return f"{_ENDS[side]} @{name}"
        case InEndpoints(side=side, set=name):
            return f"{_ENDS[side]} endpoint @{name}"
        case OwnSource(set=name):
            return f"in and from @{name}"


def _transport(match: TransportMatch) -> str:
    no = _not(match.negated)
    match match:
        case Ports(side=side, first=first, last=last):
            return f"{no}{_ENDS[side]} port {_range(first, last)}"
        case InPorts(side=side, set=name):
            return f"{no}{_ENDS[side]} port @{name}"
        case IcmpType(first=first, last=last):
            return f"{no}type {_range(first, last)}"
        case IcmpCode(of_type=type_, code=code):
            return f"type {type_} {no}code {code}"


def _action(rule: Rule) -> str:
    match rule.action:
        case Jump(chain=chain):
            return f"jump {chain}"
        case Goto(chain=chain):
            return f"goto {chain}"
        case Dispatch(map=name, direction=direction):
            return f"{direction} map @{name}"
        case Ask(side=side, askers=askers, verdicts=verdicts, family=family):
            return f"ipv{family} {_ENDS[side]} map @{askers} map @{verdicts}"
        case Pass(bits=bits):
            return f"pass {bits:#x}"
        case ClearMark(bits=bits):
            return f"clear mark {bits:#x}"
        case Log(prefix=prefix, rate=rate):
            return f'log "{prefix}"{_rate(rate)}'
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


def _rate(rate: Rate | None) -> str:
    return f" {rate.packets} in {rate.period_s} s, {rate.burst} at once" if rate is not None else ""
