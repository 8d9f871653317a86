"""Neutral rules as nf_tables expressions, and back: parse(render(x)) == x.

A match becomes a fixed run of expressions, loads and a test, so that reading is the same table the other way round; but
the family isn't tested again where it is known from a match before, nor the incoming interface loaded again. A rule's
user data is a comment for `nft list`: the fingerprint of the neutral rule and its origin.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

from calipy.felix.objects import fingerprint
from calipy.felix.rules import origins
from calipy.felix.rules.values import (
    Accept,
    Action,
    Address,
    AddressMatch,
    Ask,
    ClearMark,
    ConnectionState,
    Dispatch,
    Drop,
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
    NoTrack,
    OwnSource,
    Pass,
    Ports,
    Protocol,
    Rate,
    Reject,
    Return,
    Rule,
    Side,
    SourceNat,
    State,
    TransportMatch,
    Verdict,
)
from calipy.model.origins import Origin
from calipy.model.sets import asker_member, net_member
from calipy.netlink import attributes as nla
from calipy.netlink import nf_tables as nft
from calipy.resources.cidrs import family_of

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
_SIDES: dict[int, Side] = {0: "source", 2: "destination"}
"""Offset of a port -> whose it is."""
_META_NAMES = {"in": nft.META_IIFNAME, "out": nft.META_OIFNAME}
_RANDOM = nft.NAT_FULLY_RANDOM
_LOCAL = 2
"""RTN_LOCAL, the address type that fib gives for one of the host's own."""
_INFO = 6
"""Level of what rules log, as in Calico."""
_MOST_MATCHES = 1024
"""So many matches are remembered with their bytes."""


class Unreadable(ValueError):
    """Expressions that this dialect doesn't write."""


# --- rendering ---


def render(rule: Rule) -> tuple[bytes, ...]:
    """A rule's expressions, its counter before its action."""
    parts: list[bytes] = []
    family, before = None, None
    for match in rule.matches:
        found = address_family(match)
        known = found is not None and found == family and not isinstance(before, Family)
        loaded = known and isinstance(match, OwnSource) and isinstance(before, Interface) and before.direction == "in"
        parts += _match_expressions(match, known, loaded)
        family = found or (match.family if isinstance(match, Family) else family)
        before = match
    return (*parts, *((_COUNTER,) if rule.counted else ()), *_render(rule.action))


def address_family(match: Match) -> int | None:
    """The family of a match's address; None for one without an address."""
    match match:
        case Address(address=address):
            return family_of(address)
        case InSet(family=family) | InEndpoints(family=family) | OwnSource(family=family):
            return family
        case _:
            return None


def user_data(rule: Rule) -> bytes:
    """Fingerprint and origin, for adoption after a restart and for people."""
    return nft.comment(f"{fingerprint(rule).hex()} {origins.text(rule.origin)}")


def origin_of(data: bytes) -> str:
    """The origin in a rule's user data, as `rules.origins` reads it; empty where it isn't one of ours."""
    return nft.parse_comment(data).partition(" ")[2] if fingerprint_of(data) else ""


def fingerprint_of(data: bytes) -> str:
    """The fingerprint in a rule's user data; empty where it isn't one of ours."""
    word, _, _ = nft.parse_comment(data).partition(" ")
    return word if len(word) == 16 else ""


_COUNTER = nft.counter()


@lru_cache(_MOST_MATCHES)
def _match_expressions(match: Match, family_known: bool, interface_loaded: bool) -> tuple[bytes, ...]:
    """Most matches of a node are the same few, endpoint by endpoint. An interface's name that the match before has
    loaded is not loaded again: that costs a packet more than the comparison."""
    family = address_family(match)
    test = _family(family) if family is not None and not family_known else ()
    return (*test, *list(_render_match(match))[int(interface_loaded) :])


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
        case Address() | InSet() | InEndpoints() | OwnSource():
            yield from _render_address(match)
        case Protocol(number=number, negated=negated):
            yield nft.meta(nft.META_L4PROTO)
            yield nft.compare(bytes((number,)), _negation(negated))
        case Ports() | InPorts() | IcmpType() | IcmpCode():
            yield from _render_transport(match)
        case ConnectionState(states=states):
            yield nft.ct(nft.CT_STATE)
            yield nft.bitwise(struct.pack("=I", sum(_STATES[state] for state in states)), bytes(4))
            yield nft.compare(bytes(4), nft.NOT_EQUAL)
        case LocalSource():
            yield nft.fib(nft.FIB_ADDRESS_TYPE, nft.FIB_SOURCE)
            yield nft.compare(struct.pack("=I", _LOCAL))
        case Marked(bits=bits):
            yield nft.meta(nft.META_MARK)
            yield nft.bitwise(struct.pack("=I", bits), bytes(4))
            yield nft.compare(struct.pack("=I", bits))


def _render_address(match: AddressMatch) -> Iterator[bytes]:
    match match:
        case Address(side=side, address=address, negated=negated):
            family = family_of(address)
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, side], _SIZES[family])
            whole, _, length = address.partition("/")
            if length:
                yield nft.bitwise(_mask(family, int(length)), bytes(_SIZES[family]))
            yield nft.compare(nla.pack_address(whole), _negation(negated))
        case InSet(side=side, set=name, family=family, negated=negated):
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, side], _SIZES[family])
            yield nft.lookup(name, negated=negated)
        case InEndpoints(side=side, set=name, family=family, negated=negated):
            protocol, port = _ENDPOINT_REGISTERS[family]
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, side], _SIZES[family])
            yield nft.meta(nft.META_L4PROTO, protocol)
            yield nft.payload(nft.TRANSPORT_HEADER, _PORT_OFFSETS[side], 2, port)
            yield nft.lookup(name, negated=negated)
        case OwnSource(set=name, family=family, negated=negated):
            yield nft.meta(nft.META_IIFNAME)
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, "source"], _SIZES[family], _BEHIND_INTERFACE)
            yield nft.lookup(name, negated=negated)


_MASK_REGISTER = 9
"""Where a mask stands, behind four bytes of zero in register 1. `nft` aborts at a look-up of nothing but what another
has found; so it is said that there is a mask, and looked up with those zeros, which `nft` takes for all of the key."""
_BEHIND_INTERFACE = 2
"""Register of an address that follows the interface's name in register 1; any other address is in that itself."""
_ENDPOINT_REGISTERS = {4: (9, 10), 6: (2, 13)}
"""Where protocol and port stand behind an address of a family in register 1."""


def _render_transport(match: TransportMatch) -> Iterator[bytes]:
    match match:
        case Ports(side=side, first=first, last=last, negated=negated):
            yield nft.payload(nft.TRANSPORT_HEADER, _PORT_OFFSETS[side], 2)
            yield _range(struct.pack(">H", first), struct.pack(">H", last), negated)
        case InPorts(side=side, set=name, negated=negated):
            yield nft.payload(nft.TRANSPORT_HEADER, _PORT_OFFSETS[side], 2)
            yield nft.lookup(name, negated=negated)
        case IcmpType(first=first, last=last, negated=negated):
            yield nft.payload(nft.TRANSPORT_HEADER, 0, 1)
            yield _range(bytes((first,)), bytes((last,)), negated)
        case IcmpCode(of_type=type_, code=code, negated=negated):
            for offset, value, test in ((0, type_, nft.EQUAL), (1, code, _negation(negated))):
                yield nft.payload(nft.TRANSPORT_HEADER, offset, 1)
                yield nft.compare(bytes((value,)), test)


def _range(first: bytes, last: bytes, negated: bool) -> bytes:
    """One value is compared: that is the kernel's fastest test."""
    return nft.between(first, last, negated=negated) if first != last else nft.compare(first, _negation(negated))


def _mask(family: int, length: int) -> bytes:
    size = 8 * _SIZES[family]
    return ((1 << size) - (1 << (size - length))).to_bytes(_SIZES[family], "big")


def _family(family: int) -> Iterator[bytes]:
    yield nft.meta(nft.META_NFPROTO)
    yield nft.compare(bytes((_NFPROTO[family],)))


_PLAIN_VERDICTS: dict[type[Action], int] = {Accept: nft.ACCEPT, Drop: nft.DROP, Return: nft.RETURN}


def _render(action: Action) -> Iterator[bytes]:
    match action:
        case Accept() | Drop() | Reject() | Return() | Jump() | Goto() | Dispatch() | Ask() | Pass():
            yield from _render_verdict(action)
        case ClearMark(bits=bits):
            yield from _set_mark(bits, 0)
        case Log(prefix=prefix, rate=rate):
            if rate is not None:
                yield nft.limit(rate.packets, rate.period_s, rate.burst)
            yield nft.log(prefix, _INFO)
        case NoTrack():
            yield nft.notrack()
        case Masquerade(ports=ports):
            yield from _ports(ports)
            yield nft.masquerade(_nat_flags(ports), *((2, 3) if ports else ()))
        case SourceNat(address=address, ports=ports):
            family = family_of(address)
            yield nft.immediate(nla.pack_address(address))
            yield from _ports(ports)
            yield nft.source_nat(_NFPROTO[family], 1, _nat_flags(ports) | 1, *((2, 3) if ports else ()))


def _render_verdict(action: Verdict) -> Iterator[bytes]:
    match action:
        case Accept() | Drop() | Return():
            yield nft.verdict(_PLAIN_VERDICTS[type(action)])
        case Reject():
            yield nft.reject()
        case Jump(chain=chain):
            yield nft.verdict(nft.JUMP, chain)
        case Goto(chain=chain):
            yield nft.verdict(nft.GOTO, chain)
        case Dispatch(map=name, direction=direction):
            yield nft.meta(_META_NAMES[direction])
            yield nft.lookup_verdict(name)
        case Ask(side=side, askers=askers, verdicts=verdicts, family=family):
            yield from _family(family)
            yield nft.payload(nft.NETWORK_HEADER, _OFFSETS[family, side], _SIZES[family], 2)
            yield nft.immediate(bytes(_MASK.size))
            yield nft.lookup_value(askers, 2, _MASK_REGISTER)
            yield nft.compare(bytes(4), nft.NOT_EQUAL, _MASK_REGISTER)
            yield nft.lookup_verdict(verdicts)
        case Pass(bits=bits):
            yield from _set_mark(bits, bits)
            yield nft.verdict(nft.RETURN)


def _set_mark(bits: int, to: int) -> Iterator[bytes]:
    yield nft.meta(nft.META_MARK)
    yield nft.bitwise(struct.pack("=I", bits ^ 0xFFFFFFFF), struct.pack("=I", to))
    yield nft.meta_set(nft.META_MARK)


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
    matches = tuple(_parse_matches(parts))
    counted = bool(parts) and parts[0].name == "counter"
    return Rule(matches, _parse_action(parts[int(counted) :]), origin, counted)


def _parse_matches(parts: list[nft.Expression]) -> Iterator[Match]:
    """Each match is loads and a test; a family's test before an address belongs to that address, and to those after.
    Leaves the action in `parts`."""
    family = 0
    while not _is_action(parts):
        if _is_load(parts[0], nft.META_NFPROTO):
            family = _FAMILIES[_value(parts[1])[0]]
            del parts[:2]
            if not _is_address(parts):
                yield Family(family)
                continue
        found, used = _parse_address(family, parts) if _is_address(parts) else _parse_other(parts)
        yield found
        del parts[:used]


_ASK = ["meta", "cmp", "payload", "immediate", "lookup", "cmp", "lookup"]
_ACTIONS = ("counter", "immediate", "reject", "notrack", "masq", "nat", "log", "limit")
"""Expressions that no match begins with."""


def _is_action(parts: list[nft.Expression]) -> bool:
    """A map is looked up for an interface, or for an address of a family, or the mark is loaded so that it can be set,
    where a match would test."""
    if not parts:
        raise Unreadable("a rule without an action")
    names = [part.name for part in parts[:3]]
    loads = names[0] == "meta"
    sets = names[1:2] == ["lookup"] or names[1:] == ["bitwise", "meta"]
    return names[0] in _ACTIONS or (loads and (sets or _is_ask(parts)))


def _is_ask(parts: list[nft.Expression]) -> bool:
    return [part.name for part in parts] == _ASK


def _is_load(part: nft.Expression, key: int) -> bool:
    return part.name == "meta" and nla.as_be32(_attributes(part)[2]) == key


def _is_address(parts: list[nft.Expression]) -> bool:
    """An address is loaded next, perhaps behind the incoming interface."""
    names = [part.name for part in parts[:2]]
    at = names.index("payload") if "payload" in names and names[0] in ("payload", "meta") else None
    return at is not None and _header(parts[at]) == nft.NETWORK_HEADER


def _parse_other(parts: list[nft.Expression]) -> tuple[Match, int]:
    match parts[0].name:
        case "meta":
            return _parse_meta(nla.as_be32(_attributes(parts[0])[2]), parts)
        case "payload":
            return _parse_transport(parts)
        case "ct":
            bits = struct.unpack("=I", _data(_attributes(parts[1])[4]))[0]
            return ConnectionState(tuple(name for name, bit in _STATES.items() if bits & bit)), 3
        case "fib":
            return LocalSource(), 2
        case name:
            raise Unreadable(f"a match that begins with {name}")


def _parse_meta(key: int, parts: list[nft.Expression]) -> tuple[Match, int]:
    if key == nft.META_MARK:
        return Marked(struct.unpack("=I", _value(parts[2]))[0]), 3
    value, negated = _value(parts[1]), _is_unequal(parts[1])
    if key == nft.META_L4PROTO:
        return Protocol(value[0], negated), 2
    direction = next(direction for direction, number in _META_NAMES.items() if number == key)
    prefix = len(value) < _NAME_SIZE
    return Interface(direction, value.rstrip(b"\0").decode(), prefix, negated), 2  # type: ignore[arg-type]


def _parse_address(family: int, parts: list[nft.Expression]) -> tuple[Match, int]:
    own = parts[1:] if parts[0].name == "meta" else parts
    if nla.as_be32(_attributes(own[0])[1]) == _BEHIND_INTERFACE:
        found = _attributes(own[1])
        return OwnSource(nla.as_text(found[1]), family, _is_negated(found)), 2 + (own is not parts)
    offset = nla.as_be32(_attributes(parts[0])[3])
    side = next(side for (known, side), at in _OFFSETS.items() if known == family and at == offset)
    match parts[1].name:
        case "lookup":
            found = _attributes(parts[1])
            return InSet(side, nla.as_text(found[1]), family, _is_negated(found)), 2  # type: ignore[arg-type]
        case "meta":
            found = _attributes(parts[3])
            return InEndpoints(side, nla.as_text(found[1]), family, _is_negated(found)), 4  # type: ignore[arg-type]
        case "bitwise":
            length = int.from_bytes(_data(_attributes(parts[1])[4]), "big").bit_count()
            address = f"{nla.as_address(_value(parts[2]))}/{length}"
            return Address(side, address, _is_unequal(parts[2])), 3  # type: ignore[arg-type]
        case _:
            return Address(side, nla.as_address(_value(parts[1])), _is_unequal(parts[1])), 2  # type: ignore[arg-type]


def _is_negated(lookup: dict[int, memoryview]) -> bool:
    return 5 in lookup and bool(nla.as_be32(lookup[5]))


def _is_unequal(test: nft.Expression) -> bool:
    return nla.as_be32(_attributes(test)[2]) == (1 if test.name == "range" else nft.NOT_EQUAL)


def _value(test: nft.Expression) -> bytes:
    """What a comparison compares with."""
    return _data(_attributes(test)[3])


def _parse_transport(parts: list[nft.Expression]) -> tuple[Match, int]:
    load = _attributes(parts[0])
    offset, length = nla.as_be32(load[3]), nla.as_be32(load[4])
    if parts[1].name == "lookup":
        found = _attributes(parts[1])
        return InPorts(_SIDES[offset], nla.as_text(found[1]), _is_negated(found)), 2
    low, high, negated = _parse_range(parts[1])
    if length == 2:
        return Ports(_SIDES[offset], int.from_bytes(low, "big"), int.from_bytes(high, "big"), negated), 2
    if len(parts) > 2 and parts[2].name == "payload" and nla.as_be32(_attributes(parts[2])[3]) == 1:
        return IcmpCode(low[0], _value(parts[3])[0], _is_unequal(parts[3])), 4
    return IcmpType(low[0], high[0], negated), 2


def _parse_range(test: nft.Expression) -> tuple[bytes, bytes, bool]:
    """First and last of what a test lets through, or with True keeps out."""
    last = _data(_attributes(test)[4]) if test.name == "range" else _value(test)
    return _value(test), last, _is_unequal(test)


def _parse_action(parts: list[nft.Expression]) -> Action:
    last = _attributes(parts[-1])
    match parts[-1].name:
        case "lookup" if len(parts) == len(_ASK):
            return _parse_ask(parts)
        case "immediate" if len(parts) > 1:
            return Pass(struct.unpack("=I", _data(_attributes(parts[1])[5]))[0])
        case "immediate":
            return parse_verdict(nla.attributes(nla.attributes(last[2])[2]))
        case "reject":
            return Reject()
        case "lookup":
            key = nla.as_be32(_attributes(parts[0])[2])
            return Dispatch(nla.as_text(last[1]), "in" if key == nft.META_IIFNAME else "out")
        case _:
            return _parse_statement(parts)


def _parse_ask(parts: list[nft.Expression]) -> Ask:
    family = _FAMILIES[_value(parts[1])[0]]
    offset = nla.as_be32(_attributes(parts[2])[3])
    side = next(side for (known, side), at in _OFFSETS.items() if (known, at) == (family, offset))
    askers, verdicts = (nla.as_text(_attributes(part)[1]) for part in (parts[4], parts[6]))
    return Ask(side, askers, verdicts, family)  # type: ignore[arg-type]


def _parse_statement(parts: list[nft.Expression]) -> Action:
    last = _attributes(parts[-1])
    match parts[-1].name:
        case "notrack":
            return NoTrack()
        case "meta":
            return ClearMark(struct.unpack("=I", _data(_attributes(parts[1])[4]))[0] ^ 0xFFFFFFFF)
        case "log":
            return Log(nla.as_text(last[2]), _parse_rate(parts[:-1]))
        case "masq":
            return Masquerade(_parse_ports(parts[:-1]))
        case "nat":
            return SourceNat(nla.as_address(_data(_attributes(parts[0])[2])), _parse_ports(parts[1:-1]))
        case name:
            raise Unreadable(f"an action that ends with {name}")


def _parse_rate(parts: list[nft.Expression]) -> Rate | None:
    if not parts:
        return None
    found = _attributes(parts[0])
    return Rate(nla.as_be64(found[1]), nla.as_be64(found[2]), nla.as_be32(found[3]))


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


def element_keys(kind: str, keys: Iterable[str]) -> Iterator[bytes]:
    """The keys of elements that stand for themselves: an address, an address with protocol and port, a mask, an
    interface, or an interface and its address."""
    return map(_ELEMENT_KEYS[kind], keys)


def _mask_key(key: str) -> bytes:
    return _MASK.pack(int(key))


def _endpoint_key(key: str) -> bytes:
    address, _, end = key.rpartition(",")
    protocol, _, port = end.partition(":")
    return nla.pack_address(address) + _ENDPOINT.pack(_protocol_number(protocol), int(port))


def _interface_key(key: str) -> bytes:
    return key.encode().ljust(_NAME_SIZE, b"\0")


def _source_key(key: str) -> bytes:
    interface, _, address = key.partition(" ")
    return interface.encode().ljust(_NAME_SIZE, b"\0") + nla.pack_address(address)


_ELEMENT_KEYS: dict[str, Callable[[str], bytes]] = {
    "addresses": nla.pack_address,
    "masks": _mask_key,
    "endpoints": _endpoint_key,
    "interfaces": _interface_key,
    "sources": _source_key,
}


def element_name(kind: str, key: bytes) -> str:
    """The inverse."""
    if kind == "addresses":
        return nla.as_address(key)
    if kind == "masks":
        return str(_MASK.unpack(key)[0])
    if kind == "endpoints":
        protocol, port = _ENDPOINT.unpack(key[-_ENDPOINT.size :])
        return f"{nla.as_address(key[: -_ENDPOINT.size])},{_PROTOCOLS.get(protocol, protocol)}:{port}"
    interface = key[:_NAME_SIZE].rstrip(b"\0").decode()
    return f"{interface} {nla.as_address(key[_NAME_SIZE:])}" if kind == "sources" else interface


def asker(member: str) -> tuple[bytes, bytes]:
    """Key and value of a map from address to mask."""
    address, _, mask = member.partition(" ")
    return nla.pack_address(address), _VALUE.pack(int(mask))


def asker_name(key: bytes, value: bytes) -> str:
    """The inverse."""
    return asker_member(nla.as_address(key), _VALUE.unpack(value)[0])


_VALUE = struct.Struct("=I")
_MASK = struct.Struct("=4xI")
_ENDPOINT = struct.Struct(">B3xH2x")
"""Protocol and port as they stand behind an address: each in a word of its own."""
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_PROTOCOL_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}


def _protocol_number(name: str) -> int:
    return _PROTOCOL_NUMBERS[name] if name in _PROTOCOL_NUMBERS else int(name)


def interval(kind: str, member: str) -> tuple[bytes, bytes | None]:
    """The first key of a prefix or of a range of ports, and the key after its last (None at the end of all keys)."""
    if kind == "ports":
        first, _, last = member.partition("-")
        low, beyond, size = int(first), int(last or first) + 1, 2
    elif "/" in member:
        network = ipaddress.ip_network(member)
        low, beyond, size = int(network.network_address), int(network.broadcast_address) + 1, _SIZES[network.version]
    else:
        address = nla.pack_address(member)
        low, size = int.from_bytes(address, "big"), len(address)
        beyond = low + 1
    return low.to_bytes(size, "big"), beyond.to_bytes(size, "big") if beyond >> (8 * size) == 0 else None


def members(kind: str, first: bytes, last: bytes) -> Iterator[str]:
    """What makes up a range between two keys: one range of ports, or as many prefixes as it needs; a whole address
    goes without its length."""
    low, high = int.from_bytes(first, "big"), int.from_bytes(last, "big")
    if kind == "ports":
        yield str(low) if low == high else f"{low}-{high}"
        return
    if low == high:
        yield nla.as_address(first)
        return
    make = ipaddress.IPv4Address if len(first) == 4 else ipaddress.IPv6Address
    for network in ipaddress.summarize_address_range(make(low), make(high)):
        yield net_member(str(network))
