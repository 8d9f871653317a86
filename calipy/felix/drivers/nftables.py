"""The table `inet calipy`, whole: written in atomic batches, read only when asked to, owned by one socket.

The table carries owner and persist where the kernel has both: then nobody else can change it, and it outlives us.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from calipy.felix.dialects import nftables as dialect
from calipy.felix.ledger import LEFTOVER
from calipy.felix.objects import ObjectName, Op, Outcome, Owner, Put, Refusal, fingerprint
from calipy.felix.rules.values import Chain, Drop, Element, Goto, Hook, Jump, SetSpec
from calipy.netlink import nf_tables as nft
from calipy.netlink.messages import Message
from calipy.netlink.socket import NETFILTER, NetlinkSocket

TABLE = "calipy"
_PUT_RANKS = {"set": 0, "chain": 1, "element": 2}
_DELETE_RANKS = {"element": 3, "chain": 4, "set": 5}
_TYPES = {"interfaces": (41, 16), 4: (7, 4), 6: (8, 16)}
"""nft's numbers of its types ifname, ipv4_addr, ipv6_addr, and their sizes."""
_STRANGE = b"strange"
"""Fingerprint of what somebody else put into the table in a shape that none of ours has."""
_SLICE = 200


class TableOwned(OSError):
    """Another process owns the table: another agent is alive on this node."""


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

    def open(self) -> None:
        """Makes the table or takes it over. Raises TableOwned, and OSError where the kernel has no nf_tables."""
        for flags in (nft.OWNER | nft.PERSIST, 0) if self._own else (0,):
            refusals = self._socket.batch(nft.batch([nft.table(TABLE, flags)]))
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

    def order(self, op: Op) -> int:
        """Sets, chains, elements; then away with elements, chains, sets."""
        return (_PUT_RANKS if isinstance(op, Put) else _DELETE_RANKS)[op.name.kind]

    def leftover(self, name: ObjectName) -> Owner:
        """No difference is made."""
        return LEFTOVER

    def fingerprint(self, value: Struct) -> bytes:
        """A chain's is made of its hook and its rules' fingerprints, for those can be read back."""
        if isinstance(value, Chain):
            return _chain_fingerprint(value.hook, [fingerprint(rule).hex() for rule in value.rules])
        return fingerprint(value)

    # --- reading ---

    def read(self) -> Iterator[Mapping[ObjectName, bytes] | None]:
        """The table's chains, sets and elements."""
        if not self._opened:
            self.open()
        found: dict[ObjectName, bytes] = {}
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

    def _read_set(self, record: nft.SetRecord, found: dict[ObjectName, bytes]) -> Iterator[None]:
        spec = _spec(record)
        if spec is None:  # its elements go with it
            found[ObjectName("set", record.name)] = _STRANGE
            return
        self._specs[record.name] = spec
        found[ObjectName("set", record.name)] = fingerprint(spec)
        bodies: list[memoryview] = []
        for step in self._socket.dump_slices(nft.get_elements(TABLE, record.name)):
            bodies = step or bodies
            yield None
        elements = [element for body in bodies for element in nft.parse_elements(body)]
        for count, value in enumerate(_elements(record.name, spec, elements)):
            found[ObjectName("element", f"{record.name} {value.key}")] = fingerprint(value)
            if count % _SLICE == _SLICE - 1:
                yield None

    # --- writing ---

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        """One transaction."""
        if not self._opened:
            self.open()
        messages: list[Message] = [nft.table(TABLE, self._flags)]
        owners: list[ObjectName | None] = [None]
        for name, message in self._messages(ops):
            messages.append(message)
            owners.append(name)
        self.batches += 1
        refusals = self._socket.batch(nft.batch(messages))
        named: dict[ObjectName, Refusal] = {}
        for refusal in refusals:
            refused = owners[refusal.index - 1] if refusal.index > 0 else None
            if refused is None:
                return Outcome(resync=f"the kernel refused a batch: {refusal.text}")
            named.setdefault(refused, Refusal(refused, refusal.errno, refusal.text))
        for name, found in named.items():
            if _is_delete(ops, name):
                # Gone already, or used by what others put into the table: a reading finds either.
                return Outcome(resync=f"{name.kind} {name.name} can't be deleted: {found.reason}")
        return Outcome(refusals=tuple(named.values()))

    def _messages(self, ops: Sequence[Op]) -> Iterator[tuple[ObjectName, Message]]:
        """All new chains come before any rule: they may refer to each other. Elements go before others come: prefixes
        of one set must not overlap at any time."""
        chains = [op for op in ops if isinstance(op, Put) and isinstance(op.value, Chain)]
        for op in ops:
            if isinstance(op, Put) and isinstance(op.value, SetSpec):
                yield op.name, self._new_set(op.name.name, op.value)
        for op in chains:
            assert isinstance(op.value, Chain)
            yield op.name, nft.chain(TABLE, op.name.name, _netlink_hook(op.value.hook))
        for op in chains:
            assert isinstance(op.value, Chain)
            yield from self._fill(op, op.value)
        yield from self._element_messages(ops, delete=True)
        yield from self._element_messages(ops, delete=False)
        for op in ops:
            if not isinstance(op, Put) and op.name.kind == "chain":
                yield op.name, nft.flush_chain(TABLE, op.name.name)
        for op in ops:
            if not isinstance(op, Put) and op.name.kind != "element":
                name = op.name.name
                is_chain = op.name.kind == "chain"
                yield op.name, nft.delete_chain(TABLE, name) if is_chain else nft.delete_set(TABLE, name)

    def _new_set(self, name: str, spec: SetSpec) -> Message:
        self._set_number += 1
        self._specs[name] = spec
        key_type, length = _TYPES["interfaces" if spec.kind == "interfaces" else spec.family]
        maps = spec.kind == "interfaces"
        return nft.set_(
            TABLE,
            name,
            id_=self._set_number,
            key_type=key_type,
            key_length=length,
            flags=nft.SET_INTERVAL if spec.kind == "prefixes" else 0,
            verdicts=maps,
            user_data=nft.HOST_ORDER_KEY if maps else b"",
        )

    def _fill(self, op: Put, chain: Chain) -> Iterator[tuple[ObjectName, Message]]:
        if op.replaces:
            yield op.name, nft.flush_chain(TABLE, op.name.name)
        for rule in chain.rules:
            yield op.name, nft.rule(TABLE, op.name.name, dialect.render(rule), dialect.user_data(rule))

    def _element_messages(self, ops: Sequence[Op], *, delete: bool) -> Iterator[tuple[ObjectName, Message]]:
        """Elements of one set in as few messages as they fit, but each verdict alone: a refusal names its owner."""
        groups: dict[str, list[bytes]] = {}
        firsts: dict[str, ObjectName] = {}
        for op in ops:
            if op.name.kind != "element" or (not isinstance(op, Put)) != delete:
                continue
            set_name, _, key = op.name.name.partition(" ")
            value = op.value if isinstance(op, Put) else None
            verdict = value.verdict if isinstance(value, Element) else None
            encoded = self._encode(set_name, key, verdict)
            if self._specs[set_name].kind == "interfaces":
                if isinstance(op, Put) and op.replaces:
                    yield op.name, next(nft.elements(TABLE, set_name, self._encode(set_name, key, None), delete=True))
                yield op.name, next(nft.elements(TABLE, set_name, encoded, delete=delete))
            else:
                groups.setdefault(set_name, []).extend(encoded)
                firsts.setdefault(set_name, op.name)
        for set_name, encoded in groups.items():
            for message in nft.elements(TABLE, set_name, encoded, delete=delete):
                yield firsts[set_name], message

    def _encode(self, set_name: str, key: str, verdict: Goto | Jump | Drop | None) -> list[bytes]:
        spec = self._specs[set_name]
        start, end = dialect.element_keys(spec.kind, key)
        if spec.kind != "prefixes":
            return [nft.element(start, _netlink_verdict(verdict))]
        parts = [nft.element(start)]
        return [*parts, nft.element(end, interval_end=True)] if end is not None else parts


def _is_delete(ops: Sequence[Op], name: ObjectName) -> bool:
    return any(op.name == name and not isinstance(op, Put) for op in ops)


def _chain_fingerprint(hook: Hook | None, rules: Sequence[str]) -> bytes:
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
    match verdict:
        case Goto(chain=chain):
            return nft.Verdict(nft.GOTO, chain)
        case Jump(chain=chain):
            return nft.Verdict(nft.JUMP, chain)
        case Drop():
            return nft.Verdict(nft.DROP)
        case None:
            return None


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
    """None for a key that no set or map of ours has."""
    key = (record.key_type, record.key_length)
    if record.flags & nft.SET_MAP:
        return SetSpec("interfaces") if key == _TYPES["interfaces"] else None
    family = next((family for family in (4, 6) if _TYPES[family] == key), None)
    if family is None:
        return None
    return SetSpec("prefixes" if record.flags & nft.SET_INTERVAL else "addresses", family)


def _elements(name: str, spec: SetSpec, records: Sequence[nft.ElementRecord]) -> Iterator[Element]:
    if spec.kind != "prefixes":
        for record in records:
            yield Element(name, dialect.element_name(spec.kind, record.key), _verdict(record.verdict))
        return
    edges = sorted(records, key=lambda record: (record.key, not record.interval_end))
    for position, record in enumerate(edges):
        if record.interval_end:
            continue
        low = int.from_bytes(record.key, "big")
        following = edges[position + 1].key if position + 1 < len(edges) else None
        size = len(record.key)
        high = int.from_bytes(following, "big") - 1 if following is not None else (1 << (8 * size)) - 1
        make = ipaddress.IPv4Address if size == 4 else ipaddress.IPv6Address
        for network in ipaddress.summarize_address_range(make(low), make(high)):
            yield Element(name, str(network))


def open_driver(namespace: int | None = None) -> NftablesDriver:
    """A driver with a socket of its own, in this network namespace or another."""
    return NftablesDriver(NetlinkSocket.open(NETFILTER, namespace=namespace))
