"""Rules of others, and what they say of packets: each expression is read as far as it can be, the rest has its name.

nft optimises what it writes: a prefix of whole bytes is a short comparison, neighbouring fields are loaded in one go.
What iptables writes into nf_tables has its own matches and targets besides (`match`, `target`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from calipy.netlink import attributes as nla
from calipy.netlink import nf_tables as nft
from calipy.node.rulesets import Ruleset, TableKey
from calipy.node.ways import (
    Field,
    Hold,
    Range,
    Vague,
    Value,
    Way,
    both,
    either,
    exactly,
    joined,
    opposite,
    span,
)

_WORD = 4
_SOME, _UNREAD = Vague("some"), Vague("unread")
_SOMETHING = Value(ranges=((1, (1 << 32) - 1),), size=4)
"""Any index but none."""
_ETHER_TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
_PROTOCOLS = {4: b"\x02", 6: b"\x0a"}
_META_NAMES = {
    nft.META_MARK: "mark",
    8: "iiftype",
    9: "oiftype",
    10: "skuid",
    11: "skgid",
    21: "iifgroup",
    22: "oifgroup",
}
_META_PROTOCOL, _META_PACKET_TYPE = 1, 19
_FOR_HOST = b"\0"
"""PACKET_HOST: what is forwarded was sent to this host's own hardware address."""
_ADDRESSES = {4: ((12, 4, "source"), (16, 4, "destination")), 6: ((8, 16, "source"), (24, 16, "destination"))}
"""Offset in the network header, bytes, field."""
_QUEUE, _VERDICT_MASK = 3, 0xFF
_ENDS: Mapping[int, End] = {
    nft.DROP: "drop",
    nft.ACCEPT: "accept",
    nft.JUMP: "jump",
    nft.GOTO: "goto",
    nft.RETURN: "return",
}
_TARGETS: Mapping[str, End] = {
    "DROP": "drop",
    "REJECT": "drop",
    "ACCEPT": "accept",
    "RETURN": "return",
    "NFQUEUE": "queue",
}
_READ_MATCHES = (
    "tcp",
    "udp",
    "udplite",
    "sctp",
    "dccp",
    "icmp",
    "icmp6",
    "multiport",
    "limit",
    "hashlimit",
    "length",
    "dscp",
)
"""Matches of iptables that any packet may meet, and that say nothing of where it comes from or goes to."""
_PARTLY = ("limit", "quota", "connlimit", "exthdr")
"""Expressions that let some packets on."""
_WHOLLY = (
    "counter", "log", "notrack", "objref", "last", "dup", "secmark", "synproxy", "flow_offload", "dynset", "masq",
    "nat", "redir", "tproxy", "fwd",
)  # fmt: skip
"""Expressions that let all packets on."""
_STATE_MATCH, _STATE_AT, _FLAGS_AT, _INVERTED_AT = 1, 150, 146, 148
"""Of struct xt_conntrack_mtinfo: XT_CONNTRACK_STATE, and where state_mask, match_flags and invert_flags stand."""

End = Literal["drop", "accept", "jump", "goto", "return", "queue"]


class Said(Struct, frozen=True, gc=False):
    """What a rule does with a part of a way's packets."""

    hold: Hold
    end: End
    chain: str = ""


class _Load(Struct, frozen=True, gc=False):
    """A field comes into registers from a word on."""

    word: int
    fields: Callable[[Way], Sequence[Field]]


class _Mask(Struct, frozen=True, gc=False):
    source: int
    target: int
    mask: int
    xor: int


class _Entry(Struct, frozen=True, gc=False):
    """A key, or a range of keys; None: of any field."""

    low: bytes
    high: bytes
    verdict: nft.Verdict | None = None


class _Test(Struct, frozen=True, gc=False):
    """Whether registers from a word on hold one of these keys."""

    word: int
    entries: tuple[_Entry, ...] | None
    """None: they are not known."""
    negated: bool = False
    spans: tuple[Range, ...] = ()
    """The keys as numbers: what is asked again and again is made once."""


class _Do(Struct, frozen=True, gc=False):
    """Ends the rule."""

    end: End
    chain: str = ""


class _Choose(Struct, frozen=True, gc=False):
    """Ends the rule by the verdict that a map holds for registers."""

    choices: tuple[tuple[_Test, _Do], ...]


class _Let(Struct, frozen=True, gc=False):
    """Goes on for so many packets."""

    hold: Hold


_Step = _Load | _Mask | _Test | _Let | _Do | _Choose


class ForeignRule:
    """A rule of somebody else."""

    def __init__(self, record: nft.RuleRecord, rules: Ruleset) -> None:
        self.handle = record.handle
        self.comment = nft.parse_comment(record.user_data)
        self._table: TableKey = record.family, record.table
        self._rules = rules
        names: list[str] = []
        self._unread = names
        self._steps = [step for part in record.expressions for step in self._read(part)]
        self.unread = tuple(dict.fromkeys(names))
        """What of it can't be read."""

    def said(self, way: Way) -> Iterator[Said]:
        """What it does with the packets of a way; nothing: it lets them go on."""
        hold: Hold = "always"
        registers: dict[int, Field] = {}
        for step in self._steps:
            match step:
                case _Load(word=word, fields=fields):
                    _put(registers, word, fields(way))
                case _Mask(source=source, target=target, mask=mask, xor=xor):
                    field = registers.get(source, _UNREAD)
                    registers[target] = field if isinstance(field, Vague) else field.masked(mask, xor)
                case _Choose(choices=choices):
                    for test, do in choices:
                        yield Said(both(hold, _met(test, registers)), do.end, do.chain)
                    return
                case _Test():
                    hold = both(hold, _met(step, registers))
                case _Let(hold=part):
                    hold = both(hold, part)
                case _Do(end=end, chain=chain):
                    yield Said(hold, end, chain)
                    return
            if hold == "never":
                return

    # --- reading ---

    def _read(self, part: nft.Expression) -> Iterator[_Step]:
        found = nla.attributes(part.data)
        reader = _READERS.get(part.name)
        if reader is not None:
            yield from reader(self, found)
        elif part.name in _PARTLY:
            yield _Let("some")
        elif part.name not in _WHOLLY:
            yield self._strange(part.name)

    def _strange(self, name: str) -> _Let:
        self._unread.append(name)
        return _Let("unread")

    def _vaguely(self, found: Mapping[int, memoryview], name: str) -> Iterator[_Step]:
        """A load of something that isn't known: what tests it can't be told."""
        if 1 in found:
            self._unread.append(name)
            yield _Load(_word(found[1]), lambda way: (_UNREAD,))

    def _read_meta(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        if 1 not in found:  # it is written
            return
        fields = _METAS.get(nla.as_be32(found[2]))
        if fields is None:
            name = _META_NAMES.get(nla.as_be32(found[2]), "")
            yield from self._vaguely(found, f"meta {name}".rstrip())
        else:
            yield _Load(_word(found[1]), fields)

    def _read_payload(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        if 1 not in found:
            return
        header, offset, length = (nla.as_be32(found[number]) for number in (2, 3, 4))
        if header != nft.NETWORK_HEADER:
            field = _SOME if header == nft.TRANSPORT_HEADER else _UNREAD
            yield _Load(_word(found[1]), lambda way: (field,))
        else:
            yield _Load(_word(found[1]), lambda way: _in_header(way, offset, length))

    def _read_ct(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        if 1 not in found:
            return
        match key := nla.as_be32(found[2]):
            case nft.CT_STATE:
                yield _Load(_word(found[1]), lambda way: (way.state,))
            case nft.CT_STATUS:  # of a new connection: whether its destination was translated, or it was expected
                yield _Load(_word(found[1]), lambda way: (_SOME,))
            case nft.CT_DIRECTION:
                yield _Load(_word(found[1]), lambda way: (exactly(b"\0"),))
            case _:
                yield from self._vaguely(found, "ct mark" if key == nft.CT_MARK else "ct")

    def _read_fib(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        """The way back to a sender is there: a pod's is its own, and others come from where they belong."""
        flags, result = nla.as_be32(found[3]), nla.as_be32(found[2])
        if flags & nft.FIB_SOURCE and result in (nft.FIB_OIF, nft.FIB_OIFNAME):
            there = exactly(b"\x01") if flags & nft.FIB_PRESENT else _SOMETHING
            yield _Load(_word(found[1]), lambda way: (there,))
        else:
            yield from self._vaguely(found, "fib")

    def _read_bitwise(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        source, target = _word(found[1]), _word(found[2])
        if 4 in found and 5 in found:
            mask, xor = (int.from_bytes(nft_data(found[number]), "big") for number in (4, 5))
            yield _Mask(source, target, mask, xor)
        else:
            yield _Load(target, lambda way: (_UNREAD,))

    def _read_compare(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        operator, value = nla.as_be32(found[2]), nft_data(found[3])
        low, high = _bounds(operator, value)
        if int.from_bytes(low, "big") > int.from_bytes(high, "big"):
            yield _Let("never")
        else:
            yield _test(_word(found[1]), (_Entry(low, high),), operator == nft.NOT_EQUAL)

    def _read_range(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        entry = _Entry(nft_data(found[3]), nft_data(found[4]))
        yield _test(_word(found[1]), (entry,), bool(nla.as_be32(found[2])))

    def _read_lookup(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        name = nla.as_text(found[1])
        negated = 5 in found and bool(nla.as_be32(found[5]))
        if 3 in found and nla.as_be32(found[3]):  # a map's value goes into a register
            yield _Load(_word(found[3]), lambda way: (_UNREAD,))
        entries, word = self._entries(name), _word(found[2])
        if entries is None:
            self._unread.append(f"set {name}")
        if 3 in found and not nla.as_be32(found[3]):
            yield _Choose(tuple(_choices(word, entries)))
        else:
            yield _test(word, entries, negated)

    def _entries(self, name: str) -> tuple[_Entry, ...] | None:
        elements = self._rules.elements.get((self._table, name))
        record = self._rules.sets.get((self._table, name))
        if elements is None or record is None or any(not each.key for each in elements):  # too many, or a catch-all
            return None
        if record.flags & nft.SET_INTERVAL and not any(each.key_end for each in elements):
            return tuple(_intervals(elements, record.key_length))
        return tuple(_Entry(each.key, each.key_end or each.key, each.verdict) for each in elements)

    def _read_immediate(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        data = nla.attributes(found[2])
        if 2 not in data:
            yield _Load(_word(found[1]), lambda way: (exactly(bytes(data[1])),))
            return
        yield from _ending(nft.parse_verdict(data[2]))

    def _read_reject(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        yield _Do("drop")

    def _read_queue(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        self._unread.append("queue")
        yield _Do("queue")

    def _read_match(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        name, info = nla.as_text(found[1]), bytes(found[3])
        if name == "comment":
            self.comment = self.comment or nla.as_text(info.partition(b"\0")[0])
        elif (
            name == "conntrack"
            and len(info) >= _STATE_AT + 2
            and struct.unpack_from("=H", info, _FLAGS_AT)[0] == _STATE_MATCH
        ):
            (bits,), (inverted,) = (
                struct.unpack_from("=H", info, _STATE_AT),
                struct.unpack_from("=H", info, _INVERTED_AT),
            )
            yield _Load(0, lambda way: (way.state,))
            yield _Mask(0, 0, int.from_bytes(struct.pack("=I", bits), "big"), 0)
            yield _test(0, (_Entry(bytes(4), bytes(4)),), not inverted & _STATE_MATCH)
        elif name in _READ_MATCHES:
            yield _Let("some")
        else:
            yield self._strange(f"match {name}")

    def _read_target(self, found: Mapping[int, memoryview]) -> Iterator[_Step]:
        end = _TARGETS.get(nla.as_text(found[1]))
        if end == "queue":
            self._unread.append("NFQUEUE")
        if end is not None:
            yield _Do(end)


_Reader = Callable[[ForeignRule, Mapping[int, memoryview]], Iterator[_Step]]
_READERS: Mapping[str, _Reader] = {
    "meta": ForeignRule._read_meta,
    "payload": ForeignRule._read_payload,
    "ct": ForeignRule._read_ct,
    "fib": ForeignRule._read_fib,
    "rt": lambda rule, found: rule._vaguely(found, "rt"),
    "socket": lambda rule, found: rule._vaguely({1: found[2]} if 2 in found else {}, "socket"),
    "bitwise": ForeignRule._read_bitwise,
    "cmp": ForeignRule._read_compare,
    "range": ForeignRule._read_range,
    "lookup": ForeignRule._read_lookup,
    "immediate": ForeignRule._read_immediate,
    "reject": ForeignRule._read_reject,
    "queue": ForeignRule._read_queue,
    "match": ForeignRule._read_match,
    "target": ForeignRule._read_target,
}
_METAS: Mapping[int, Callable[[Way], Sequence[Field]]] = {
    nft.META_IIFNAME: lambda way: (way.incoming,),
    nft.META_OIFNAME: lambda way: (way.outgoing,),
    nft.META_IIF: lambda way: (way.incoming_index,),
    nft.META_OIF: lambda way: (way.outgoing_index,),
    nft.META_NFPROTO: lambda way: (exactly(_PROTOCOLS[way.family]),),
    _META_PROTOCOL: lambda way: (exactly(_ETHER_TYPES[way.family]),),
    _META_PACKET_TYPE: lambda way: (exactly(_FOR_HOST),),
    nft.META_L4PROTO: lambda way: (_SOME,),
}


def nft_data(nested: memoryview) -> bytes:
    """The value in a data attribute (NFTA_DATA_VALUE)."""
    return bytes(nla.attributes(nested)[1])


def _word(register: memoryview) -> int:
    """A register's place, in words: the four long ones lie over the sixteen short ones."""
    number = nla.as_be32(register)
    return number - 8 if number >= 8 else (number - 1) * 4


def _in_header(way: Way, offset: int, length: int) -> Sequence[Field]:
    """What a load of the network header gives: an address or its first bytes, or one and the other."""
    for at, size, name in _ADDRESSES[way.family]:
        if offset == at and length <= size:
            return (getattr(way, name),)
        if offset == at and length == 2 * size:
            return way.source, way.destination
    return (_SOME,)


def _put(registers: dict[int, Field], word: int, fields: Sequence[Field]) -> None:
    for field in fields:
        registers[word] = field
        word += _words(field)


def _words(field: Field) -> int:
    return 1 if isinstance(field, Vague) else -(-field.size // _WORD)


def _bounds(operator: int, value: bytes) -> tuple[bytes, bytes]:
    number, size = int.from_bytes(value, "big"), len(value)
    first, last = b"", b""  # what isn't bounded goes to the end of the field
    match operator:
        case nft.EQUAL | nft.NOT_EQUAL:
            return value, value
        case nft.LESS:
            last = (number - 1).to_bytes(size, "big") if number else b""
        case nft.LESS_EQUAL:
            last = value
        case nft.GREATER:
            first = (number + 1).to_bytes(size, "big") if number + 1 < 1 << 8 * size else b""
        case nft.GREATER_EQUAL:
            first = value
    return first or bytes(size), last or b"\xff" * size


def _intervals(elements: Sequence[nft.ElementRecord], size: int) -> Iterator[_Entry]:
    """Ranges from their first keys and the keys after their last."""
    begun: nft.ElementRecord | None = None
    for element in sorted(elements, key=lambda each: (each.key, not each.interval_end)):
        if begun is not None:
            last = int.from_bytes(element.key, "big") - 1
            yield _Entry(begun.key, last.to_bytes(size, "big"), begun.verdict)
        begun = None if element.interval_end else element
    if begun is not None:
        yield _Entry(begun.key, b"\xff" * size, begun.verdict)


def _met(test: _Test, registers: Mapping[int, Field]) -> Hold:
    """For which packets a test holds."""
    if test.entries is None:
        return "unread"
    first = registers.get(test.word, _UNREAD)
    if isinstance(first, Vague) or not test.entries:
        met: Hold = first.hold if isinstance(first, Vague) and test.entries else "never"
    elif len(test.entries[0].low) == first.size:
        met = first.within(test.spans)
    elif len(test.entries[0].low) < first.size:
        met = first.within(joined(span(entry.low, entry.high, first.size) for entry in test.entries))
    else:
        met = either(_entry_met(entry, test.word, registers) for entry in test.entries)
    return opposite(met) if test.negated else met


def _entry_met(entry: _Entry, word: int, registers: Mapping[int, Field]) -> Hold:
    """A key of several fields, each in words of its own."""
    hold: Hold = "always"
    at = 0
    while at < len(entry.low):
        field = registers.get(word + at // _WORD, _UNREAD)
        if isinstance(field, Vague):
            hold = both(hold, field.hold)
        else:
            hold = both(hold, field.within((span(entry.low[at:], entry.high[at:], field.size),)))
        at += _words(field) * _WORD
    return hold


def _test(word: int, entries: tuple[_Entry, ...] | None, negated: bool = False) -> _Test:
    spans = joined(span(entry.low, entry.high, len(entry.low)) for entry in entries or ())
    return _Test(word, entries, negated, spans)


def _choices(word: int, entries: tuple[_Entry, ...] | None) -> Iterator[tuple[_Test, _Do]]:
    """The verdicts of a map, each with the keys that lead to it."""
    if entries is None:
        yield _Test(word, None), _Do("drop")
        return
    keys: dict[nft.Verdict, list[_Entry]] = {}
    for entry in entries:
        if entry.verdict is not None:
            keys.setdefault(entry.verdict, []).append(entry)
    for verdict, found in keys.items():
        for do in _ending(verdict):
            yield _test(word, tuple(found)), do


def _ending(verdict: nft.Verdict) -> Iterator[_Do]:
    end = _ENDS.get(verdict.code)
    if end is not None:
        yield _Do(end, verdict.chain)
    elif verdict.code >= 0 and verdict.code & _VERDICT_MASK == _QUEUE:
        yield _Do("queue")
