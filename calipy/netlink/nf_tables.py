"""nf_tables (linux/netfilter/nf_tables.h): tables, chains, rules, sets, elements and the expressions of rules.

What is written is of family inet; what is read may be of any. Builders give a Message; parsers take the body of a
dump's answer. Registers: 1 (16 bytes) is where everything is loaded; concatenations go on in 32-bit registers from 8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from msgspec import Struct

from calipy.netlink import attributes as nla
from calipy.netlink.messages import APPEND, CREATE, DUMP, Message, Series

ANY, INET, IPV4, NETDEV, IPV6 = 0, 1, 2, 5, 10
"""Families of tables (NFPROTO_*); a dump of any gives all."""
_NFGENMSG = struct.Struct("=BBH")
_SUBSYSTEM = 10
_KIND = _SUBSYSTEM << 8
(
    _NEW_TABLE, _GET_TABLE, _DELETE_TABLE, _NEW_CHAIN, _GET_CHAIN, _DELETE_CHAIN, _NEW_RULE, _GET_RULE, _DELETE_RULE,
    _NEW_SET, _GET_SET, _DELETE_SET, _NEW_ELEMENT, _GET_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION, _GET_GENERATION,
) = (_KIND | number for number in range(17))  # fmt: skip
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
GROUP_NF_TABLES = 7
"""NFNLGRP_NFTABLES: notifications of changes."""

DORMANT, OWNER, PERSIST = 0x1, 0x2, 0x4
"""Table flags: its chains are asked by nobody; only the socket that made it may change it; it outlives that socket
(Linux 6.9)."""
SET_CONSTANT, SET_INTERVAL, SET_MAP, SET_CONCATENATION = 2, 4, 8, 128
VERDICT_DATA = 0xFFFFFF00
"""NFT_DATA_VERDICT: data type of a verdict map."""
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5

HOST_ORDER_KEY = bytes((0, 4)) + struct.pack("=I", 1)
"""Set user data that tells `nft list` to show keys (interface names) in host order; the kernel doesn't care."""
HOST_ORDER_DATA = bytes((1, 4)) + struct.pack("=I", 1)
"""The same of a map's values."""

HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_ELEMENT_BYTES = 60_000
"""An attribute's length has 16 bits."""


class Hook(Struct, frozen=True, gc=False, kw_only=True):
    """What makes a chain a base chain."""

    number: int
    priority: int
    type: str = "filter"
    policy: int = ACCEPT


class TableRecord(Struct, frozen=True, gc=False, kw_only=True):
    """A table as the kernel has it."""

    name: str
    flags: int
    user_data: bytes
    owner: int = 0
    """Netlink port of the socket that owns it; 0 = nobody."""
    family: int = INET


class ChainRecord(Struct, frozen=True, gc=False, kw_only=True):
    """A chain as the kernel has it."""

    table: str
    name: str
    hook: Hook | None
    user_data: bytes
    family: int = INET
    devices: tuple[str, ...] = ()
    """Of a hook that belongs to devices: ingress and egress."""


class Expression(Struct, frozen=True, gc=False):
    """One expression of a rule: its name and its attributes as bytes."""

    name: str
    data: bytes


class RuleRecord(Struct, frozen=True, gc=False, kw_only=True):
    """A rule as the kernel has it."""

    table: str
    chain: str
    handle: int
    expressions: tuple[Expression, ...]
    user_data: bytes
    family: int = INET


class SetRecord(Struct, frozen=True, gc=False, kw_only=True):
    """A set or map as the kernel has it."""

    table: str
    name: str
    flags: int
    key_type: int
    key_length: int
    data_type: int
    """Of a map's values; 0: it is no map."""
    user_data: bytes
    family: int = INET


class Verdict(Struct, frozen=True, gc=False):
    """A verdict and, for jump and goto, the chain."""

    code: int
    chain: str = ""


class ElementRecord(Struct, frozen=True, gc=False, kw_only=True):
    """An element as the kernel has it."""

    key: bytes
    interval_end: bool = False
    verdict: Verdict | None = None
    key_end: bytes = b""
    """The last key of a range in a set of concatenations."""
    value: bytes = b""
    """Of a map to values."""


# --- batches ---


def batch(messages: Sequence[Message | Series], generation: int | None = None) -> list[Message | Series]:
    """Messages between begin and end: one transaction. With a generation it is refused (ERESTART) if the rule set of
    the namespace has changed since."""
    begin = _NFGENMSG.pack(0, 0, _SUBSYSTEM << 8)  # res_id in network order
    guard = nla.be32(1, generation) if generation is not None else b""
    return [Message(_BATCH_BEGIN, 0, begin + guard), *messages, Message(_BATCH_END, 0, begin)]


def get_generation() -> Message:
    """Asks for the generation of the namespace's rule set."""
    return Message(_GET_GENERATION, 0, _NFGENMSG.pack(0, 0, 0))


def parse_generation(body: nla.Data) -> int:
    """The generation."""
    return nla.as_be32(_parts(body)[1])


# --- tables and chains ---


@lru_cache(maxsize=16)
def _table_name(name: str) -> bytes:
    return nla.string(1, name)


def table(name: str, flags: int = 0, user_data: bytes = b"") -> Message:
    """Creates a table, or adopts one that persists."""
    return _message(_NEW_TABLE, CREATE, nla.string(1, name) + nla.be32(2, flags) + _user_data(6, user_data))


def delete_table(name: str) -> Message:
    """Deletes a table with all that is in it."""
    return _message(_DELETE_TABLE, 0, nla.string(1, name))


def chain(table_name: str, name: str, hook: Hook | None = None, user_data: bytes = b"") -> Message:
    """Creates a chain; nothing if it is there."""
    body = _table_name(table_name) + nla.string(3, name)
    if hook is not None:
        body += nla.nested(4, nla.be32(1, hook.number), nla.be32(2, hook.priority))
        body += nla.string(7, hook.type) + nla.be32(5, hook.policy)
    return _message(_NEW_CHAIN, CREATE, body + _user_data(12, user_data))


def delete_chain(table_name: str, name: str) -> Message:
    """Deletes a chain that nothing jumps to."""
    return _message(_DELETE_CHAIN, 0, _table_name(table_name) + nla.string(3, name))


def flush_chain(table_name: str, name: str) -> Message:
    """Deletes all rules of a chain."""
    return _message(_DELETE_RULE, 0, _table_name(table_name) + nla.string(2, name))


def rule(table_name: str, chain_name: str, expressions_: Iterable[bytes], user_data: bytes = b"") -> Message:
    """Appends a rule to a chain."""
    return put_rule(table_name, chain_name, rule_content(expressions_, user_data))


def rule_content(expressions_: Iterable[bytes], user_data: bytes = b"") -> bytes:
    """All of a rule but where it is: many chains have the same."""
    return nla.nested(4, *expressions_) + _user_data(7, user_data)


def put_rule(table_name: str, chain_name: str, content: bytes) -> Message:
    """`rule` by its content."""
    return _message(_NEW_RULE, CREATE | APPEND, _table_name(table_name) + nla.string(2, chain_name) + content)


def alike(messages: Sequence[Message], table_name: str, names: Sequence[bytes]) -> Series:
    """What is done with one chain, the first of `names`, done with all of them; each takes as many bytes."""
    place = _NFGENMSG.size + len(_table_name(table_name)) + nla.HEADER_SIZE
    return Series(tuple(messages), place, nla.strings(names), len(names))


# --- sets ---


def set_(
    table_name: str,
    name: str,
    *,
    id_: int,
    key_type: int,
    key_length: int,
    flags: int = 0,
    verdicts: bool = False,
    data: tuple[int, int] | None = None,
    fields: Sequence[int] = (),
    size: int = 0,
    user_data: bytes = b"",
) -> Message:
    """Creates a set, or with `verdicts` a verdict map, with `data` a map to values of that type and length; `fields`
    are the lengths of a concatenation's parts; of `size` elements at most the kernel makes its fastest hash set.

    `id_` tells the sets of one batch apart. `key_type` is nft's own number of the type, for `nft list`.
    """
    data = (VERDICT_DATA, 0) if verdicts else data
    flags |= SET_MAP if data else 0
    body = nla.string(1, table_name) + nla.string(2, name) + nla.be32(3, flags)
    body += nla.be32(4, key_type) + nla.be32(5, key_length) + nla.be32(10, id_)
    if data:
        body += nla.be32(6, data[0]) + nla.be32(7, data[1])
    if fields:
        body += nla.nested(9, nla.nested(2, *(nla.nested(1, nla.be32(1, length)) for length in fields)))
    if size:
        body += nla.nested(9, nla.be32(1, size))
    return _message(_NEW_SET, CREATE, body + _user_data(13, user_data))


def delete_set(table_name: str, name: str) -> Message:
    """Deletes a set that no rule refers to."""
    return _message(_DELETE_SET, 0, nla.string(1, table_name) + nla.string(2, name))


def elements(table_name: str, set_name: str, encoded: Iterable[bytes], *, delete: bool = False) -> Iterator[Message]:
    """Adds or deletes elements, in as many messages as their bytes need."""
    head = nla.string(1, table_name) + nla.string(2, set_name)
    kind, flags = (_DELETE_ELEMENT, 0) if delete else (_NEW_ELEMENT, CREATE)
    chunk: list[bytes] = []
    size = 0
    for element_ in encoded:
        if size + len(element_) > _ELEMENT_BYTES:
            yield _message(kind, flags, head + nla.nested(3, *chunk))
            chunk, size = [], 0
        chunk.append(element_)
        size += len(element_)
    if chunk:
        yield _message(kind, flags, head + nla.nested(3, *chunk))


def element(key: bytes, verdict: Verdict | None = None, *, interval_end: bool = False, value: bytes = b"") -> bytes:
    """An element, in a map with its verdict or value; in an interval set a range is its first key and, as interval_end,
    the key after its last."""
    rest = _element_verdict(verdict) if verdict is not None else b""
    if value:
        rest = nla.nested(2, nla.attribute(1, value))
    if interval_end:
        rest += nla.be32(3, 1)
    return _element_head(len(key), len(rest)) + key + nla.padding(len(key)) + rest


def elements_alike(first: bytes, keys: Sequence[bytes], chains: Sequence[bytes] = ()) -> Iterator[bytes]:
    """`element` of each key, by that of the first one, in pieces for `elements`. Keys have one length, and so have the
    names of the chains, if verdicts lead to any."""
    padding, count = nla.padding(len(keys[0])), len(keys)
    fields = [(_KEY_PLACE, padding.join((*keys, b"")))]
    if chains:
        names = nla.strings(chains)
        fields.append((len(first) - len(names) // count, names))
    encoded, most = nla.repeated(first, count, fields), _ELEMENT_BYTES // len(first) * len(first)
    for start in range(0, len(encoded), most):
        yield bytes(encoded[start : start + most])


_KEY_PLACE = 12
"""Where an element's key begins."""


@lru_cache(maxsize=256)
def _element_head(key: int, rest: int) -> bytes:
    """The headers of an element, its key and the key's value."""
    return nla.nested(1, nla.nested(1, nla.attribute(1, bytes(key))), bytes(rest))[:12]


def _element_verdict(value: Verdict) -> bytes:
    chain_part = nla.string(2, value.chain) if value.chain else b""
    return _verdict_head(value.code, len(chain_part)) + chain_part


@lru_cache(maxsize=256)
def _verdict_head(code: int, rest: int) -> bytes:
    return nla.nested(2, nla.nested(2, nla.be32(1, code), bytes(rest)))[:16]


# --- dumps ---


def get_tables(family: int = INET) -> Message:
    """Asks for all tables of a family."""
    return _message(_GET_TABLE, DUMP, b"", family)


def get_chains(family: int = INET) -> Message:
    """Asks for all chains of a family; the kernel does not filter by table."""
    return _message(_GET_CHAIN, DUMP, b"", family)


def get_rules(table_name: str, family: int = INET) -> Message:
    """Asks for a table's rules."""
    return _message(_GET_RULE, DUMP, nla.string(1, table_name), family)


def get_sets(table_name: str, family: int = INET) -> Message:
    """Asks for a table's sets and maps."""
    return _message(_GET_SET, DUMP, nla.string(1, table_name), family)


def get_elements(table_name: str, set_name: str, family: int = INET) -> Message:
    """Asks for a set's elements."""
    return _message(_GET_ELEMENT, DUMP, nla.string(1, table_name) + nla.string(2, set_name), family)


def parse_table(body: nla.Data) -> TableRecord:
    """A table."""
    found = _parts(body)
    return TableRecord(
        name=nla.as_text(found[1]),
        flags=nla.as_be32(found[2]) if 2 in found else 0,
        user_data=bytes(found.get(6, b"")),
        owner=nla.as_be32(found[7]) if 7 in found else 0,
        family=_family(body),
    )


def parse_chain(body: nla.Data) -> ChainRecord:
    """A chain."""
    found = _parts(body)
    hook: Hook | None = None
    devices: tuple[str, ...] = ()
    if 4 in found:
        at = nla.attributes(found[4])
        devices = tuple(_devices(at))
        priority = nla.as_be32(at[2])
        hook = Hook(
            number=nla.as_be32(at[1]),
            priority=priority - (1 << 32) if priority >> 31 else priority,
            type=nla.as_text(found[7]) if 7 in found else "filter",
            policy=nla.as_be32(found[5]) if 5 in found else ACCEPT,
        )
    return ChainRecord(
        table=nla.as_text(found[1]), name=nla.as_text(found[3]), hook=hook, user_data=bytes(found.get(12, b"")),
        family=_family(body), devices=devices,
    )  # fmt: skip


def _devices(hook: dict[int, memoryview]) -> Iterator[str]:
    """Of a hook's attributes: the one device, or the list that newer kernels give."""
    if 4 in hook:
        yield from (nla.as_text(name) for _, name in nla.each(hook[4]))
    elif 3 in hook:
        yield nla.as_text(hook[3])


def parse_rule(body: nla.Data) -> RuleRecord:
    """A rule."""
    found = _parts(body)
    return RuleRecord(
        table=nla.as_text(found[1]),
        chain=nla.as_text(found[2]),
        handle=nla.as_be64(found[3]),
        expressions=tuple(parse_expressions(found[4])) if 4 in found else (),
        user_data=bytes(found.get(7, b"")),
        family=_family(body),
    )


def parse_expressions(data: nla.Data) -> Iterator[Expression]:
    """The expressions of a rule."""
    for _, item in nla.each(data):
        found = nla.attributes(item)
        yield Expression(nla.as_text(found[1]), bytes(found.get(2, b"")))


def parse_set(body: nla.Data) -> SetRecord:
    """A set or map."""
    found = _parts(body)
    return SetRecord(
        table=nla.as_text(found[1]),
        name=nla.as_text(found[2]),
        flags=nla.as_be32(found[3]) if 3 in found else 0,
        key_type=nla.as_be32(found[4]),
        key_length=nla.as_be32(found[5]),
        data_type=nla.as_be32(found[6]) if 6 in found else 0,
        user_data=bytes(found.get(13, b"")),
        family=_family(body),
    )


def parse_elements(body: nla.Data) -> Iterator[ElementRecord]:
    """The elements in one answer of a dump."""
    found = _parts(body)
    for _, item in nla.each(found[3]) if 3 in found else ():
        parts = nla.attributes(item)
        verdict, value = None, b""
        if 2 in parts:
            data = nla.attributes(parts[2])
            verdict = parse_verdict(data[2]) if 2 in data else None
            value = bytes(data.get(1, b""))
        yield ElementRecord(
            key=bytes(nla.attributes(parts[1])[1]) if 1 in parts else b"",
            interval_end=bool(nla.as_be32(parts[3]) & 1) if 3 in parts else False,
            verdict=verdict,
            key_end=bytes(nla.attributes(parts[10])[1]) if 10 in parts else b"",
            value=value,
        )


def parse_verdict(data: nla.Data) -> Verdict:
    """A verdict's attributes (NFTA_DATA_VERDICT)."""
    found = nla.attributes(data)
    code = nla.as_be32(found[1])
    return Verdict(code - (1 << 32) if code >> 31 else code, nla.as_text(found[2]) if 2 in found else "")


# --- expressions ---

NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
META_MARK, META_IIF, META_OIF, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 3, 4, 5, 6, 7, 15, 16
CT_STATE, CT_DIRECTION, CT_STATUS, CT_MARK = 0, 1, 2, 3
STATE_INVALID, STATE_ESTABLISHED, STATE_RELATED, STATE_NEW, STATE_UNTRACKED = 1, 2, 4, 8, 64
EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL = range(6)
FIB_OIF, FIB_OIFNAME, FIB_ADDRESS_TYPE = 1, 2, 3
FIB_SOURCE, FIB_DESTINATION, FIB_MARK, FIB_IIF, FIB_OIF_FLAG, FIB_PRESENT = 1, 2, 4, 8, 16, 32
NAT_RANDOM, NAT_PERSISTENT, NAT_FULLY_RANDOM, NAT_PORTS = 4, 8, 16, 2
_NAT_MAP_ADDRESSES = 1


@lru_cache(maxsize=4096)
def expression(name: str, *attributes_: bytes) -> bytes:
    """One expression."""
    return nla.nested(1, nla.string(1, name), nla.nested(2, *attributes_))


def payload(header: int, offset: int, length: int, register: int = 1) -> bytes:
    """Loads bytes of a packet's header."""
    return expression("payload", nla.be32(1, register), nla.be32(2, header), nla.be32(3, offset), nla.be32(4, length))


def meta(key: int, register: int = 1) -> bytes:
    """Loads a packet's metadatum."""
    return expression("meta", nla.be32(2, key), nla.be32(1, register))


def meta_set(key: int, register: int = 1) -> bytes:
    """Writes a packet's metadatum."""
    return expression("meta", nla.be32(2, key), nla.be32(3, register))


def compare(value: bytes, operator: int = EQUAL, register: int = 1) -> bytes:
    """Goes on with the rule if the register compares so."""
    return expression("cmp", nla.be32(1, register), nla.be32(2, operator), nla.nested(3, nla.attribute(1, value)))


def between(low: bytes, high: bytes, *, negated: bool = False, register: int = 1) -> bytes:
    """Goes on if the register lies in a closed range (or not)."""
    return expression(
        "range",
        nla.be32(1, register),
        nla.be32(2, int(negated)),
        nla.nested(3, nla.attribute(1, low)),
        nla.nested(4, nla.attribute(1, high)),
    )


def bitwise(mask: bytes, xor: bytes, register: int = 1) -> bytes:
    """register = (register & mask) ^ xor."""
    return expression(
        "bitwise",
        nla.be32(1, register),
        nla.be32(2, register),
        nla.be32(3, len(mask)),
        nla.nested(4, nla.attribute(1, mask)),
        nla.nested(5, nla.attribute(1, xor)),
    )


def lookup(set_name: str, *, negated: bool = False, register: int = 1) -> bytes:
    """Goes on if the register is (not) in a set."""
    parts = [nla.string(1, set_name), nla.be32(2, register)]
    if negated:
        parts.append(nla.be32(5, 1))
    return expression("lookup", *parts)


def lookup_value(map_name: str, register: int = 1, into: int = 1) -> bytes:
    """Loads the value that a map holds for the register; goes on where it holds one."""
    return expression("lookup", nla.string(1, map_name), nla.be32(2, register), nla.be32(3, into))


def lookup_verdict(map_name: str, register: int = 1) -> bytes:
    """Takes the verdict that a map holds for the register; goes on where it holds none."""
    return expression("lookup", nla.string(1, map_name), nla.be32(2, register), nla.be32(3, 0))


def immediate(value: bytes, register: int = 1) -> bytes:
    """Loads a constant."""
    return expression("immediate", nla.be32(1, register), nla.nested(2, nla.attribute(1, value)))


def verdict(code: int, chain_name: str = "") -> bytes:
    """Ends the rule with a verdict."""
    return expression("immediate", nla.be32(1, 0), nla.nested(2, _verdict(Verdict(code, chain_name))))


def _verdict(value: Verdict) -> bytes:
    chain_part = nla.string(2, value.chain) if value.chain else b""
    return nla.nested(2, nla.be32(1, value.code), chain_part)


def counter() -> bytes:
    """Counts packets and bytes."""
    return expression("counter", nla.be64(1, 0), nla.be64(2, 0))


def ct(key: int, register: int = 1) -> bytes:
    """Loads a datum of the packet's tracked connection."""
    return expression("ct", nla.be32(2, key), nla.be32(1, register))


def notrack() -> bytes:
    """Exempts the packet from connection tracking."""
    return expression("notrack")


def masquerade(flags: int, low_port_register: int = 0, high_port_register: int = 0) -> bytes:
    """Translates the source to the address of the outgoing link."""
    parts = [nla.be32(1, flags)]
    if low_port_register:
        parts += [nla.be32(2, low_port_register), nla.be32(3, high_port_register)]
    return expression("masq", *parts)


def source_nat(
    family: int, address_register: int, flags: int, low_port_register: int = 0, high_port_register: int = 0
) -> bytes:
    """Translates the source to the address in a register; `family` is NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10)."""
    parts = [nla.be32(1, 0), nla.be32(2, family), nla.be32(3, address_register)]
    if low_port_register:
        parts += [nla.be32(5, low_port_register), nla.be32(6, high_port_register)]
    return expression("nat", *parts, nla.be32(7, flags))


def fib(result: int, flags: int, register: int = 1) -> bytes:
    """Looks an address of the packet up in the routing tables."""
    return expression("fib", nla.be32(1, register), nla.be32(2, result), nla.be32(3, flags))


def log(prefix: str, level: int) -> bytes:
    """Writes a line into the kernel's log; `level` as syslog counts, 6 = info."""
    return expression("log", nla.string(2, prefix), nla.be32(5, level))


def limit(packets: int, period_s: int, burst: int) -> bytes:
    """Goes on for so many packets in a period at most, and so many at once."""
    kind, flags = nla.be32(4, 0), nla.be32(5, 0)
    return expression("limit", nla.be64(1, packets), nla.be64(2, period_s), nla.be32(3, burst), kind, flags)


def reject() -> bytes:
    """Answers with an ICMP port-unreachable of the packet's family and drops."""
    return expression("reject", nla.be32(1, 2), nla.u8(2, 1))  # NFT_REJECT_ICMPX_UNREACH, port unreachable


def comment(text: str) -> bytes:
    """User data that `nft list` shows as a comment; the text has 252 bytes at most."""
    data = text.encode() + b"\0"
    return bytes((0, len(data))) + data


def parse_comment(user_data: bytes) -> str:
    """The text of `comment`; empty where there is none."""
    offset = 0
    while offset + 2 <= len(user_data):
        kind, length = user_data[offset], user_data[offset + 1]
        if kind == 0:
            return user_data[offset + 2 : offset + 2 + length].rstrip(b"\0").decode(errors="replace")
        offset += 2 + length
    return ""


def _message(kind: int, flags: int, body: bytes, family: int = INET) -> Message:
    return Message(kind, flags, _NFGENMSG.pack(family, 0, 0) + body)


def _family(body: nla.Data) -> int:
    return int(_NFGENMSG.unpack_from(body)[0])


def _parts(body: nla.Data) -> dict[int, memoryview]:
    return nla.attributes(memoryview(body)[_NFGENMSG.size :])


def _user_data(kind: int, data: bytes) -> bytes:
    return nla.attribute(kind, data) if data else b""


def table_of(kind: int, body: nla.Data) -> tuple[int, str] | None:
    """Family and name of the table that a notification is about, it or something in it; None where it is about none."""
    if kind == _NEW_GENERATION or len(body) <= _NFGENMSG.size:
        return None
    found = _parts(body)
    return (_family(body), nla.as_text(found[1])) if 1 in found else None
