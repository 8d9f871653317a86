"""Neutral rules as nf_tables expressions, and back: parse(render(x)) == x.

A match becomes a fixed run of expressions, a load and a test, so that reading is the same table the other way round. A
rule's user data is a comment for `nft list`: the fingerprint of the neutral rule and its origin.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from calipy.felix.objects import fingerprint
from calipy.felix.rules.values import (
    Accept,
    Action,
    Address,
    ConnectionState,
    Dispatch,
    Drop,
    Family,
    Goto,
    IcmpType,
    InSet,
    Interface,
    Jump,
    LocalSource,
    Masquerade,
    Match,
    NoTrack,
    OwnSource,
    Ports,
    Protocol,
    Reject,
    Return,
    Rule,
    SourceNat,
    State,
)
from calipy.model.origins import Origin
from calipy.netlink import attributes as nla
from calipy.netlink import nf_tables as nft

_NAME_SIZE = 16
_NFPROTO = {4: 2, 6: 10}
_FAMILIES = {number: family for family, number in _NFPROTO.items()}
_OFFSETS = {(4, "source"): 12, (4, "destination"): 16, (6, "source"): 8, (6, "destination"): 24}
_SIZES = {4: 4, 6: 16}
_PORT_OFFSETS = {"source": 0, "destination": 2}
_STATES: dict[State, int] = {
    "invalid": nft.STATE_INVALID,
    "established": nft.STATE_ESTABLISHED,
    "related": nft.STATE_RELATED,
    "new": nft.STATE_NEW,
    "untracked": nft.STATE_UNTRACKED,
}
_META_NAMES = {"in": nft.META_IIFNAME, "out": nft.META_OIFNAME}
_RANDOM = nft.NAT_FULLY_RANDOM
_LOCAL = 2
"""RTN_LOCAL, the address type that fib gives for one of the host's own."""
_MOST_COMMENT = 200
_MOST_MATCHES = 1024
"""So many matches are remembered with their bytes."""


class Unreadable(ValueError):
    """Expressions that this dialect doesn't write."""


# --- rendering ---


def render(rule: Rule) -> tuple[bytes, ...]:
    """A rule's expressions, a counter before its action."""
    matches = [part for match in rule.matches for part in _match_expressions(match)]
    return (*matches, _COUNTER, *_render(rule.action))


def user_data(rule: Rule) -> bytes:
    """Fingerprint and origin, for adoption after a restart and for people."""
    origin = str(rule.origin)
    if len(origin.encode()) > _MOST_COMMENT:
        origin = f"{rule.origin.kind} #{hashlib.blake2b(origin.encode(), digest_size=16).hexdigest()}"
    return nft.comment(f"{fingerprint(rule).hex()} {origin}")


def fingerprint_of(data: bytes) -> str:
    """The fingerprint in a rule's user data; empty where it isn't one of ours."""
    word, _, _ = nft.parse_comment(data).partition(" ")
    return word if len(word) == 16 else ""


_COUNTER = nft.counter()


@lru_cache(_MOST_MATCHES)
def _match_expressions(match: Match) -> tuple[bytes, ...]:
    """Most matches of a node are the same few, endpoint by endpoint."""
    return tuple(_render_match(match))


def _negation(negated: bool) -> int:
    return nft.NOT_EQUAL if negated else nft.EQUAL


def _render_match(match: Match) -> Iterator[bytes]:
    match match:
        case Interface(direction=direction, name=name, prefix=prefix, negated=negated):
            yield nft.meta(_META_NAMES[direction])
            value = name.encode() if prefix else name.encode().ljust(_NAME_SIZE, b"\0")
            yield nft.compare(value, _negation(negated))
        case Family(family=family):
            yield from _family(family)
        case Address() | InSet() | OwnSource():
            yield from _render_address(match)
        case Protocol(number=number, negated=negated):
            yield nft.meta(nft.META_L4PROTO)
            yield nft.compare(bytes((number,)), _negation(negated))
        case Ports(side=side, first=first, last=last):
            yield nft.payload(nft.TRANSPORT_HEADER, _PORT_OFFSETS[side], 2)
            yield nft.between(struct.pack(">H", first), struct.pack(">H", last))
        case IcmpType(first=first, last=last):
            yield nft.payload(nft.TRANSPORT_HEADER, 0, 1)
            yield nft.between(bytes((first,)), bytes((last,)))
        case ConnectionState(states=states):
            yield nft.ct(nft.CT_STATE)
            yield nft.bitwise(struct.pack("=I", sum(_STATES[state] for state in states)), bytes(4))
            yield nft.compare(bytes(4), nft.NOT_EQUAL)
        case LocalSource():
            yield nft.fib(nft.FIB_ADDRESS_TYPE, nft.FIB_SOURCE)
            yield nft.compare(struct.pack("=I", _LOCAL))


def _render_address(match: Address | InSet | OwnSource) -> Iterator[bytes]:
    match match:
        case Address(side=side, address=address, negated=negated):
            family = 6 if ":" in address else 4
            yield from _family(family)
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, side], _SIZES[family])
            whole, _, length = address.partition("/")
            if length:
                yield nft.bitwise(_mask(family, int(length)), bytes(_SIZES[family]))
            yield nft.compare(nla.pack_address(whole), _negation(negated))
        case InSet(side=side, set=name, family=family, negated=negated):
            yield from _family(family)
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, side], _SIZES[family])
            yield nft.lookup(name, negated=negated)
        case OwnSource(set=name, family=family, negated=negated):
            yield from _family(family)
            yield nft.meta(nft.META_IIFNAME)
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, "source"], _SIZES[family], register=2)
            yield nft.lookup(name, negated=negated)


def _mask(family: int, length: int) -> bytes:
    size = 8 * _SIZES[family]
    return ((1 << size) - (1 << (size - length))).to_bytes(_SIZES[family], "big")


def _family(family: int) -> Iterator[bytes]:
    yield nft.meta(nft.META_NFPROTO)
    yield nft.compare(bytes((_NFPROTO[family],)))


_PLAIN_VERDICTS: dict[type[Action], int] = {Accept: nft.ACCEPT, Drop: nft.DROP, Return: nft.RETURN}


def _render(action: Action) -> Iterator[bytes]:
    if type(action) in _PLAIN_VERDICTS:
        yield nft.verdict(_PLAIN_VERDICTS[type(action)])
    match action:
        case Jump(chain=chain):
            yield nft.verdict(nft.JUMP, chain)
        case Goto(chain=chain):
            yield nft.verdict(nft.GOTO, chain)
        case Reject():
            yield nft.reject()
        case NoTrack():
            yield nft.notrack()
        case Dispatch(map=name, direction=direction):
            yield nft.meta(_META_NAMES[direction])
            yield nft.lookup_verdict(name)
        case Masquerade(ports=ports):
            yield from _ports(ports)
            yield nft.masquerade(_nat_flags(ports), *((2, 3) if ports else ()))
        case SourceNat(address=address, ports=ports):
            family = 6 if ":" in address else 4
            yield nft.immediate(nla.pack_address(address))
            yield from _ports(ports)
            yield nft.source_nat(_NFPROTO[family], 1, _nat_flags(ports) | 1, *((2, 3) if ports else ()))


def _ports(ports: tuple[int, int] | None) -> Iterator[bytes]:
    if ports is not None:
        yield nft.immediate(struct.pack(">H", ports[0]), 2)
        yield nft.immediate(struct.pack(">H", ports[1]), 3)


def _nat_flags(ports: tuple[int, int] | None) -> int:
    return _RANDOM | (nft.NAT_PORTS if ports else 0)


# --- parsing ---


def parse(expressions: Sequence[nft.Expression], origin: Origin) -> Rule:
    """The neutral rule that these expressions spell. Raises Unreadable."""
    parts = list(expressions)
    split = next((index for index, part in enumerate(parts) if part.name == "counter"), None)
    if split is None:
        raise Unreadable("a rule without a counter")
    return Rule(tuple(_parse_matches(parts[:split])), _parse_action(parts[split + 1 :]), origin)


def _parse_matches(parts: list[nft.Expression]) -> Iterator[Match]:
    """Each match is a load and a test; a family's test before an address belongs to that address."""
    while parts:
        loaded = _attributes(parts[0])
        match parts[0].name:
            case "meta":
                found, used = _parse_meta(nla.as_be32(loaded[2]), parts)
            case "payload":
                found, used = _parse_transport(loaded, parts[1]), 2
            case "ct":
                bits = struct.unpack("=I", _data(_attributes(parts[1])[4]))[0]
                found, used = ConnectionState(tuple(name for name, bit in _STATES.items() if bits & bit)), 3
            case "fib":
                found, used = LocalSource(), 2
            case name:
                raise Unreadable(f"a match that begins with {name}")
        yield found
        del parts[:used]


def _parse_meta(key: int, parts: list[nft.Expression]) -> tuple[Match, int]:
    test = _attributes(parts[1])
    value, negated = _data(test[3]), nla.as_be32(test[2]) == nft.NOT_EQUAL
    if key == nft.META_L4PROTO:
        return Protocol(value[0], negated), 2
    if key == nft.META_NFPROTO:
        family = _FAMILIES[value[0]]
        match [part.name for part in parts[2:5]]:
            case ["payload", "bitwise" | "cmp" | "lookup", *_] if _header(parts[2]) == nft.NETWORK_HEADER:
                return _parse_address(family, parts[2:])
            case ["meta", "payload", "lookup"]:
                found = _attributes(parts[4])
                return OwnSource(nla.as_text(found[1]), family, _is_negated(found)), 5
        return Family(family), 2
    direction = next(direction for direction, number in _META_NAMES.items() if number == key)
    prefix = len(value) < _NAME_SIZE
    return Interface(direction, value.rstrip(b"\0").decode(), prefix, negated), 2  # type: ignore[arg-type]


def _parse_address(family: int, parts: list[nft.Expression]) -> tuple[Match, int]:
    offset = nla.as_be32(_attributes(parts[0])[3])
    side = next(side for (known, side), at in _OFFSETS.items() if known == family and at == offset)
    found = _attributes(parts[1])
    if parts[1].name == "lookup":
        return InSet(side, nla.as_text(found[1]), family, _is_negated(found)), 4  # type: ignore[arg-type]
    length = f"/{int.from_bytes(_data(found[4]), 'big').bit_count()}" if parts[1].name == "bitwise" else ""
    test = _attributes(parts[2]) if length else found
    negated = nla.as_be32(test[2]) == nft.NOT_EQUAL
    return Address(side, nla.as_address(_data(test[3])) + length, negated), 5 if length else 4  # type: ignore[arg-type]


def _is_negated(lookup: dict[int, memoryview]) -> bool:
    return 5 in lookup and bool(nla.as_be32(lookup[5]))


def _parse_transport(load: dict[int, memoryview], test: nft.Expression) -> Match:
    found = _attributes(test)
    low, high = _data(found[3]), _data(found[4])
    if nla.as_be32(load[4]) == 1:
        return IcmpType(low[0], high[0])
    side = next(side for side, at in _PORT_OFFSETS.items() if at == nla.as_be32(load[3]))
    return Ports(side, struct.unpack(">H", low)[0], struct.unpack(">H", high)[0])  # type: ignore[arg-type]


def _parse_action(parts: list[nft.Expression]) -> Action:
    last = _attributes(parts[-1])
    match parts[-1].name:
        case "immediate":
            return parse_verdict(nla.attributes(nla.attributes(last[2])[2]))
        case "reject":
            return Reject()
        case "notrack":
            return NoTrack()
        case "lookup":
            key = nla.as_be32(_attributes(parts[0])[2])
            return Dispatch(nla.as_text(last[1]), "in" if key == nft.META_IIFNAME else "out")
        case "masq":
            return Masquerade(_parse_ports(parts[:-1]))
        case "nat":
            return SourceNat(nla.as_address(_data(_attributes(parts[0])[2])), _parse_ports(parts[1:-1]))
        case name:
            raise Unreadable(f"an action that ends with {name}")


_VERDICTS: dict[int, Callable[[str], Action]] = {
    nft.ACCEPT: lambda chain: Accept(),
    nft.DROP: lambda chain: Drop(),
    nft.RETURN: lambda chain: Return(),
    nft.JUMP: Jump,
    nft.GOTO: Goto,
}


def parse_verdict(found: dict[int, memoryview]) -> Action:
    """A verdict's attributes as an action."""
    code = nla.as_be32(found[1])
    signed = code - (1 << 32) if code >> 31 else code
    if signed not in _VERDICTS:
        raise Unreadable(f"verdict {signed}")
    return _VERDICTS[signed](nla.as_text(found[2]) if 2 in found else "")


def _parse_ports(parts: list[nft.Expression]) -> tuple[int, int] | None:
    if not parts:
        return None
    first, last = (struct.unpack(">H", _data(_attributes(part)[2]))[0] for part in parts)
    return first, last


def _attributes(part: nft.Expression) -> dict[int, memoryview]:
    return nla.attributes(part.data)


def _header(part: nft.Expression) -> int:
    return nla.as_be32(_attributes(part)[2])


def _data(nested: memoryview) -> bytes:
    return bytes(nla.attributes(nested)[1])


# --- elements ---


def element_key(kind: str, key: str) -> bytes:
    """The key of an element that stands for itself: an address, an interface, or an interface and its address."""
    if kind == "addresses":
        return nla.pack_address(key)
    interface, _, address = key.partition(" ")
    name = interface.encode().ljust(_NAME_SIZE, b"\0")
    return name + nla.pack_address(address) if address else name


def element_name(kind: str, key: bytes) -> str:
    """The inverse."""
    if kind == "addresses":
        return nla.as_address(key)
    interface = key[:_NAME_SIZE].rstrip(b"\0").decode()
    return f"{interface} {nla.as_address(key[_NAME_SIZE:])}" if kind == "sources" else interface


def interval(prefix: str) -> tuple[bytes, bytes | None]:
    """A prefix's first key, and the key after its last (None at the end of all addresses)."""
    network = ipaddress.ip_network(prefix)
    size = _SIZES[network.version]
    beyond = int(network.broadcast_address) + 1
    return network.network_address.packed, beyond.to_bytes(size, "big") if beyond >> (8 * size) == 0 else None
