"""The table `inet calipy`, whole: written in atomic batches, read only when asked to, owned by one socket.

The table carries owner and persist where the kernel has both: then nobody else can change it, and it outlives us.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from calipy.felix.calc import runs
from calipy.felix.dialects import nftables as dialect
from calipy.felix.ledger import LEFTOVER
from calipy.felix.objects import Alter, Delete, Found, ObjectName, Op, Outcome, Owner, Put, Refusal, fingerprint
from calipy.felix.rules.values import Chain, Drop, Element, Goto, Hook, Jump, SetSpec
from calipy.netlink import nf_tables as nft
from calipy.netlink.messages import Message, Series
from calipy.netlink.socket import NETFILTER, NetlinkSocket

TABLE = "calipy"
_PUT_RANKS = {"set": 0, "chain": 1, "members": 2, "element": 2}
_DELETE_RANKS = {"element": 3, "chain": 4, "set": 5}
_ADDRESS, _ADDRESS6, _PROTOCOL, _PORT, _MARK, _NAME = 7, 8, 12, 13, 19, 41
"""nft's numbers of its types ipv4_addr, ipv6_addr, inet_proto, inet_service, mark and ifname."""


def _joined(*types: int) -> int:
    """The number of a concatenation: six bits for each part."""
    number = 0
    for type_ in types:
        number = number << 6 | type_
    return number


_KEYS: dict[tuple[str, int], tuple[int, int]] = {
    ("addresses", 4): (_ADDRESS, 4),
    ("addresses", 6): (_ADDRESS6, 16),
    ("prefixes", 4): (_ADDRESS, 4),
    ("prefixes", 6): (_ADDRESS6, 16),
    ("endpoints", 4): (_joined(_ADDRESS, _PROTOCOL, _PORT), 12),
    ("endpoints", 6): (_joined(_ADDRESS6, _PROTOCOL, _PORT), 24),
    ("sources", 4): (_joined(_NAME, _ADDRESS), 20),
    ("sources", 6): (_joined(_NAME, _ADDRESS6), 32),
    ("ports", 0): (_PORT, 2),
    ("askers", 4): (_ADDRESS, 4),
    ("askers", 6): (_ADDRESS6, 16),
    ("interfaces", 0): (_NAME, 16),
    ("masks", 0): (_joined(_MARK, _MARK), 8),
}
"""Kind and family of a set -> type and length of its keys."""
_INTERVALS = ("prefixes", "ports")
_VERDICTS = ("interfaces", "masks")
_TOGETHER = ("addresses", "prefixes", "endpoints", "ports", "askers")
"""Kinds of sets whose members have one owner."""
_MOST_MASKS = 2 * runs.MOST_MASKS
"""While a transaction exchanges all of them, those that go and those that come are there."""
_MOST_PRINTS = 1024
_STRANGE = b"strange"
"""Fingerprint of what somebody else put into the table in a shape that none of ours has."""
_SLICE = 200
_FIRST = 2
"""Place of the first operation's message, behind the batch's begin and the table."""


_Op = TypeVar("_Op", Put, Delete, Put | Delete)
_Told = tuple[ObjectName | None, Message] | tuple[list[ObjectName], Series]
"""A message and the object that it is about (None: several), or a series and its objects."""


class TableOwned(OSError):
    """Another process owns the table: another agent is alive on this node."""


class _Unwritable(Exception):
    """An object that can't be put into bytes: no message of it is sent, and it counts as refused."""

    def __init__(self, name: ObjectName, reason: str) -> None:
        super().__init__(name, reason)
        self.refusal = Refusal(name, errno.EINVAL, f"it can't be written: {reason}")


_UNFIT = (ValueError, OSError, OverflowError, struct.error)
"""What is raised for a value that has no bytes: an address that is none, a port beyond all ports."""


class NftablesDriver:
    """Reads and writes the table; implements `objects.Driver`."""

    name = "nftables"
    transactional = True

    def __init__(self, socket: NetlinkSocket, *, own: bool = True) -> None:
        """`own` False: anybody may change the table, as on kernels before 6.9; what they change is repaired."""
        self._socket = socket
        self._own = own
        self._flags = 0
        self._opened = False
        self._set_number = 0
        self._specs: dict[str, SetSpec] = {}
        self._prints: dict[int, tuple[Chain, bytes]] = {}
        """Fingerprints of chains by their identity: endpoints that are governed alike share theirs."""
        self.batches = 0

    @property
    def port(self) -> int:
        """The socket's netlink port, by which notifications tell our own changes."""
        return self._socket.port

    def close(self) -> None:
        """Lets go of the socket; the table stays where it persists."""
        self._socket.close()

    def exists(self) -> bool:
        """True if the table is there already."""
        return any(nft.parse_table(body).name == TABLE for body in self._socket.dump(nft.get_tables()))

    def open(self, ops: tuple[Op, ...] = ()) -> None:
        """Makes the table or takes it over, with these operations in the same transaction. Raises TableOwned, and
        OSError where the kernel has no nf_tables, or refuses one of them."""
        if self._opened:
            return
        messages = [message for _, message in self._messages(ops, together=True)]
        for flags in (nft.OWNER | nft.PERSIST, 0) if self._own else (0,):
            refusals = self._socket.batch(nft.batch([nft.table(TABLE, flags), *messages]))
            if not refusals:
                self._flags, self._opened = flags, True
                return
            if refusals[0].errno == errno.EPERM:
                raise TableOwned(errno.EPERM, f"table inet {TABLE} is owned by {self._owner()}; stop that one first")
        raise refusals[0].error()

    def _owner(self) -> str:
        """Who owns the table. A process's first netlink socket has the process's id as its port."""
        tables = map(nft.parse_table, self._socket.dump(nft.get_tables()))
        port = next((table.owner for table in tables if table.name == TABLE), 0)
        try:
            command = Path(f"/proc/{port}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return f"another agent alive on this node (netlink port {port})"
        return f"process {port} ({command}): another agent alive on this node"

    def order(self, kind: str, gone: bool) -> int:
        """Sets, chains, elements; then away with elements, chains, sets."""
        return (_DELETE_RANKS if gone else _PUT_RANKS)[kind]

    def weight(self, op: Op) -> int:
        """A chain weighs as much as its rules, members as much as those that come and go."""
        if isinstance(op, Alter):
            return len(op.added) + len(op.removed)
        return 1 + (len(op.value.rules) if isinstance(op, Put) and isinstance(op.value, Chain) else 0)

    def leftover(self, name: ObjectName) -> Owner:
        """No difference is made."""
        return LEFTOVER

    def fingerprint(self, value: Struct) -> bytes:
        """A chain's is made of its hook and its rules' fingerprints, for those can be read back; all else can be
        read as it is."""
        if not isinstance(value, Chain):
            return msgspec.msgpack.encode(value)
        known = self._prints.get(id(value))
        if known is None:
            if len(self._prints) >= _MOST_PRINTS:
                self._prints.clear()
            print_ = _chain_fingerprint(value.hook, [fingerprint(rule).hex() for rule in value.rules])
            known = self._prints[id(value)] = (value, print_)
        return known[1]

    # --- reading ---

    def read(self) -> Iterator[Found | None]:
        """The table's chains, sets and elements."""
        if not self._opened:
            self.open()
        found: dict[ObjectName, bytes | frozenset[str]] = {}
        self._specs = {}
        if not self.exists():
            yield found
            return
        bodies: list[memoryview] = []
        for step in self._socket.dump_slices(nft.get_chains()):
            bodies = step or bodies
            yield None
        hooks = {record.name: record.hook for record in map(nft.parse_chain, bodies) if record.table == TABLE}
        rules: dict[str, list[str]] = {name: [] for name in hooks}
        bodies = []
        for step in self._socket.dump_slices(nft.get_rules(TABLE)):
            bodies = step or bodies
            yield None
        for count, body in enumerate(bodies):
            record = nft.parse_rule(body)
            if record.chain in rules:  # else it was made since the chains were read: a notice tells of it
                rules[record.chain].append(dialect.fingerprint_of(record.user_data))
            if count % _SLICE == _SLICE - 1:
                yield None
        for name, prints in rules.items():
            found[ObjectName("chain", name)] = _chain_fingerprint(_hook(hooks[name]), prints)
        for body in self._socket.dump(nft.get_sets(TABLE)):
            yield from self._read_set(nft.parse_set(body), found)
        yield found

    def _read_set(self, record: nft.SetRecord, found: dict[ObjectName, bytes | frozenset[str]]) -> Iterator[None]:
        spec = _spec(record)
        if spec is None:  # its elements go with it
            found[ObjectName("set", record.name)] = _STRANGE
            return
        self._specs[record.name] = spec
        found[ObjectName("set", record.name)] = self.fingerprint(spec)
        bodies: list[memoryview] = []
        for step in self._socket.dump_slices(nft.get_elements(TABLE, record.name)):
            bodies = step or bodies
            yield None
        if spec.kind in _TOGETHER:
            yield from self._read_members(record.name, spec, bodies, found)
            return
        for body in bodies:
            for element in nft.parse_elements(body):
                name = f"{record.name} {dialect.element_name(spec.kind, element.key)}"
                found[ObjectName("element", name)] = self.fingerprint(Element(_verdict(element.verdict)))
            yield None

    def _read_members(
        self, name: str, spec: SetSpec, bodies: list[memoryview], found: dict[ObjectName, bytes | frozenset[str]]
    ) -> Iterator[None]:
        members: set[str] = set()
        edges: list[_Edge] = []
        for body in bodies:
            elements = nft.parse_elements(body)
            if spec.kind in _INTERVALS:
                edges.extend((element.key, not element.interval_end) for element in elements)
            elif spec.kind == "askers":
                members.update(dialect.asker_name(element.key, element.value) for element in elements)
            else:
                members.update(dialect.element_name(spec.kind, element.key) for element in elements)
            yield None
        for count, (low, high) in enumerate(_ranges(edges)):
            members.update(dialect.members(spec.kind, low, high))
            if count % _SLICE == _SLICE - 1:
                yield None
        found[ObjectName("members", name)] = frozenset(members)

    # --- writing ---

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        """One transaction. Elements of one set share messages; where one of these is refused, the transaction is tried
        again with each element by itself, so that the kernel names the one that it means."""
        if not self._opened:
            self.open()
        outcome = self._transact(ops, together=True)
        return outcome if outcome is not None else self._transact(ops, together=False) or Outcome()

    def _transact(self, ops: tuple[Op, ...], *, together: bool) -> Outcome | None:
        """None: a message of several elements was refused."""
        messages: list[Message | Series] = [nft.table(TABLE, self._flags)]
        told: list[ObjectName | None] = []
        try:
            for about, message in self._messages(ops, together=together):
                messages.append(message)
                if isinstance(about, list):
                    told += about
                else:
                    told.append(about)
        except _Unwritable as unwritable:
            return Outcome(refusals=(unwritable.refusal,))
        self.batches += 1
        named: dict[ObjectName, Refusal] = {}
        for refusal in self._socket.batch(nft.batch(messages)):
            if refusal.index < _FIRST:
                return Outcome(resync=f"the kernel refused a batch: {refusal.text}")
            name = told[refusal.index - _FIRST]
            if name is None:
                return None
            named.setdefault(name, Refusal(name, refusal.errno, refusal.text))
        for name, found in named.items():
            if any(op.name == name and isinstance(op, Delete) for op in ops):
                # Gone already, or used by what others put into the table: a reading finds either.
                return Outcome(resync=f"{name.kind} {name.name} can't be deleted: {found.reason}")
        return Outcome(refusals=tuple(named.values()))

    def _messages(self, ops: Sequence[Op], *, together: bool) -> Iterator[_Told]:
        """All new chains come before any rule: they may refer to each other. Elements go before others come: prefixes
        of one set must not overlap at any time. Chains that go are emptied, so that no set is in use, and deleted last:
        until then maps may lead to them."""
        puts: defaultdict[str, list[Put]] = defaultdict(list)
        gone: defaultdict[str, list[Delete]] = defaultdict(list)
        altered: list[Alter] = []
        for op in ops:
            if type(op) is Put:
                puts[op.name.kind].append(op)
            elif type(op) is Delete:
                gone[op.name.kind].append(op)
            elif type(op) is Alter:
                altered.append(op)
        for op in puts["set"]:
            assert isinstance(op.value, SetSpec)
            yield op.name, self._new_set(op.name.name, op.value)
        yield from self._new_chains(puts["chain"])
        whole = {op.name.name for op in gone["set"]}
        leaving: list[Put | Delete] = [*gone["element"], *(op for op in puts["element"] if op.replaces)]
        yield from _element_messages(self._leaving(leaving, altered, whole), delete=True, together=together)
        coming = self._coming(puts["element"], altered, together=together)
        yield from _element_messages(coming, delete=False, together=together)
        for op in gone["chain"]:
            yield op.name, nft.flush_chain(TABLE, op.name.name)
        for op in gone["set"]:
            yield op.name, nft.delete_set(TABLE, op.name.name)
        for op in gone["chain"]:
            yield op.name, nft.delete_chain(TABLE, op.name.name)

    def _new_chains(self, ops: Sequence[Put]) -> Iterator[_Told]:
        """Chains of one value, which endpoints that are governed alike have, are written as a series."""
        alike: defaultdict[tuple[int, int, bool], list[Put]] = defaultdict(list)
        for op in ops:
            alike[id(op.value), len(op.name.name.encode()), op.replaces].append(op)
        for group in alike.values():
            value = group[0].value
            assert isinstance(value, Chain)
            yield from _for_all(group, [nft.chain(TABLE, group[0].name.name, _netlink_hook(value.hook))])
        for group in alike.values():
            yield from _for_all(group, list(self._filling(group[0])))

    def _new_set(self, name: str, spec: SetSpec) -> Message:
        self._set_number += 1
        self._specs[name] = spec
        key_type, length = _KEYS[spec.kind, spec.family]
        verdicts, askers = spec.kind in _VERDICTS, spec.kind == "askers"
        return nft.set_(
            TABLE,
            name,
            id_=self._set_number,
            key_type=key_type,
            key_length=length,
            flags=nft.SET_INTERVAL if spec.kind in _INTERVALS else 0,
            verdicts=verdicts,
            data=(_MARK, 4) if askers else None,
            size=_MOST_MASKS if spec.kind == "masks" else 0,
            user_data=nft.HOST_ORDER_KEY if verdicts else nft.HOST_ORDER_DATA if askers else b"",
        )

    @staticmethod
    def _filling(op: Put) -> Iterator[Message]:
        """What puts a chain's rules into it."""
        assert isinstance(op.value, Chain)
        if op.replaces:
            yield nft.flush_chain(TABLE, op.name.name)
        try:
            for rule in op.value.rules:
                yield nft.rule(TABLE, op.name.name, dialect.render(rule), dialect.user_data(rule))
        except _UNFIT as error:
            raise _Unwritable(op.name, str(error)) from error

    def _leaving(self, elements: Sequence[Put | Delete], altered: Sequence[Alter], gone: set[str]) -> _Elements:
        """What goes, or makes room for another value. What is in a set that goes as a whole goes with it."""
        leaving = _elements()
        for op in altered:
            if op.removed and op.name.name not in gone:
                leaving[op.name.name].append((op.name, self._members(op, op.removed)))
        for set_name, found, keys in _by_set(elements):
            if set_name not in gone:
                for each, key in zip(found, self._keys(set_name, found, keys), strict=True):
                    leaving[set_name].append((each.name, [nft.element(key)]))
        return leaving

    def _coming(self, elements: Sequence[Put], altered: Sequence[Alter], *, together: bool) -> _Elements:
        coming = _elements()
        for op in altered:
            if op.added:
                coming[op.name.name].append((op.name, self._members(op, op.added)))
        for set_name, puts, keys in _by_set(elements):
            encoded = self._keys(set_name, puts, keys)
            verdicts = [put.value.verdict for put in puts if isinstance(put.value, Element)]
            alike = _alike(encoded, verdicts) if together and len(puts) > 1 else None
            if alike is not None:
                coming[set_name].append((None, alike))
                continue
            for put, key, verdict in zip(puts, encoded, verdicts, strict=True):
                coming[set_name].append((put.name, [nft.element(key, _netlink_verdict(verdict))]))
        return coming

    def _keys(self, set_name: str, ops: Sequence[Op], keys: Sequence[str]) -> list[bytes]:
        """The bytes of these operations' keys."""
        encoded: list[bytes] = []
        try:
            encoded.extend(dialect.element_keys(self._specs[set_name].kind, keys))
        except _UNFIT as error:  # what came before it is encoded
            at = len(encoded)
            raise _Unwritable(ops[at].name, f"{keys[at]}: {error}") from error
        return encoded

    def _members(self, op: Alter, keys: frozenset[str]) -> list[bytes]:
        kind = self._specs[op.name.name].kind
        if kind == "askers":
            return list(self._askers(op.name, keys))
        if kind not in _INTERVALS:
            return [nft.element(key) for key in self._keys(op.name.name, [op] * len(keys), list(keys))]
        found = []
        for key in sorted(keys):
            try:
                start, end = dialect.interval(kind, key)
            except _UNFIT as error:
                raise _Unwritable(op.name, f"{key}: {error}") from error
            found.append(nft.element(start))
            if end is not None:
                found.append(nft.element(end, interval_end=True))
        return found

    @staticmethod
    def _askers(name: ObjectName, keys: frozenset[str]) -> Iterator[bytes]:
        for key in keys:
            try:
                address, mask = dialect.asker(key)
            except _UNFIT as error:
                raise _Unwritable(name, f"{key}: {error}") from error
            yield nft.element(address, value=mask)


_Elements = Mapping[str, list[tuple[ObjectName | None, Sequence[bytes]]]]
"""Set -> the objects in it that come or go, each with the bytes of its elements; None: several."""


def _elements() -> defaultdict[str, list[tuple[ObjectName | None, Sequence[bytes]]]]:
    return defaultdict(list)


def _by_set(ops: Iterable[_Op]) -> Iterator[tuple[str, list[_Op], list[str]]]:
    """The operations on the elements of each set, and the elements' keys."""
    found: defaultdict[str, tuple[list[_Op], list[str]]] = defaultdict(lambda: ([], []))
    for op in ops:
        set_name, _, key = op.name.name.partition(" ")
        of_set, keys = found[set_name]
        of_set.append(op)
        keys.append(key)
    return ((set_name, of_set, keys) for set_name, (of_set, keys) in found.items())


def _alike(keys: Sequence[bytes], verdicts: Sequence[Goto | Jump | Drop | None]) -> list[bytes] | None:
    """The bytes of elements that differ but in what they say, as endpoints' do; None: these differ in more."""
    chains = [verdict.chain.encode() for verdict in verdicts if isinstance(verdict, (Goto, Jump))]
    for shapes in (map(type, verdicts), map(len, keys), map(len, chains)):
        if len(set(shapes)) > 1:
            return None
    return list(nft.elements_alike(nft.element(keys[0], _netlink_verdict(verdicts[0])), keys, chains))


def _element_messages(elements: _Elements, *, delete: bool, together: bool) -> Iterator[_Told]:
    for set_name, found in elements.items():
        if together and len(found) > 1:
            encoded = itertools.chain.from_iterable(each for _, each in found)
            for message in nft.elements(TABLE, set_name, encoded, delete=delete):
                yield None, message
            continue
        for name, each in found:
            for message in nft.elements(TABLE, set_name, each, delete=delete):
                yield name, message


def _for_all(ops: Sequence[Put], messages: list[Message]) -> Iterator[_Told]:
    """Messages about the first chain, and the same about the others."""
    if len(ops) == 1:
        yield from ((ops[0].name, message) for message in messages)
    elif messages:
        yield [op.name for op in ops], nft.alike(messages, TABLE, [op.name.name.encode() for op in ops])


_NO_RULES = b"no rules"


def _chain_fingerprint(hook: Hook | None, rules: Sequence[str]) -> bytes:
    if hook is None and not rules:
        return _NO_RULES
    at = f"{hook.type} {hook.hook} {hook.priority}" if hook is not None else ""
    return hashlib.blake2b("\n".join([at, *rules]).encode(), digest_size=8).digest()


def _netlink_hook(hook: Hook | None) -> nft.Hook | None:
    if hook is None:
        return None
    return nft.Hook(number=nft.HOOKS[hook.hook], priority=hook.priority, type=hook.type)


def _hook(hook: nft.Hook | None) -> Hook | None:
    if hook is None:
        return None
    name = next((name for name, number in nft.HOOKS.items() if number == hook.number), f"hook {hook.number}")
    return Hook(type=hook.type, hook=name, priority=hook.priority)  # type: ignore[arg-type]


def _netlink_verdict(verdict: Goto | Jump | Drop | None) -> nft.Verdict | None:
    if isinstance(verdict, Goto):
        return nft.Verdict(nft.GOTO, verdict.chain)
    if isinstance(verdict, Jump):
        return nft.Verdict(nft.JUMP, verdict.chain)
    return nft.Verdict(nft.DROP) if verdict is not None else None


def _verdict(verdict: nft.Verdict | None) -> Goto | Jump | Drop | None:
    if verdict is None:
        return None
    known: dict[int, Goto | Jump | Drop] = {
        nft.GOTO: Goto(verdict.chain),
        nft.JUMP: Jump(verdict.chain),
        nft.DROP: Drop(),
    }
    return known.get(verdict.code)


def _spec(record: nft.SetRecord) -> SetSpec | None:
    """None for what no set or map of ours is."""
    shape = record.key_type, record.key_length, bool(record.flags & nft.SET_INTERVAL), record.data_type
    for (kind, family), key in _KEYS.items():
        if shape == (*key, kind in _INTERVALS, _data_type(kind)):
            return SetSpec(kind, family)  # type: ignore[arg-type]
    return None


def _data_type(kind: str) -> int:
    """Of a map's values; 0: it is no map."""
    if kind in _VERDICTS:
        return nft.VERDICT_DATA
    return _MARK if kind == "askers" else 0


_Edge = tuple[bytes, bool]
"""A key in an interval set, and whether a range begins there or has ended before it."""


def _ranges(edges: list[_Edge]) -> Iterator[tuple[bytes, bytes]]:
    """First and last key of each range of an interval set."""
    edges.sort()  # an end before what begins at the same key; the kernel gives them sorted, or the other way round
    for position, (key, begins) in enumerate(edges):
        if begins:
            size = len(key)
            beyond = int.from_bytes(edges[position + 1][0], "big") if position + 1 < len(edges) else 1 << (8 * size)
            yield key, (beyond - 1).to_bytes(size, "big")


def open_driver(namespace: int | None = None) -> NftablesDriver:
    """A driver with a socket of its own, in this network namespace or another."""
    return NftablesDriver(NetlinkSocket.open(NETFILTER, namespace=namespace))
