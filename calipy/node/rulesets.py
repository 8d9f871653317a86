"""Packet filters of others, read from the kernel: tables that may drop a packet, with all that their rules refer to.

Left out are our own tables, those that kube-proxy writes, and those that see no packet of a pod: bridges' and ARP's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from calipy.netlink import nf_tables as nft
from calipy.netlink.messages import Message
from calipy.netlink.socket import NetlinkSocket

TableKey = tuple[int, str]
"""Family (NFPROTO_*) and name."""

FAMILIES: Mapping[int, str] = {nft.INET: "inet", nft.IPV4: "ip", nft.IPV6: "ip6", nft.NETDEV: "netdev"}
"""Of tables that may see a pod's packets, as nft names them."""
_KNOWN = {
    *((nft.INET, name) for name in ("calipy", "calipy-recheck")),
    *((family, "kube-proxy") for family in (nft.IPV4, nft.IPV6)),
}
ELEMENTS_MOST = 10_000
"""A set of more is not read."""
_LEGACY = ("ip_tables_names", "ip6_tables_names")


class Ruleset(Struct, frozen=True, gc=False, kw_only=True):
    """Tables of others."""

    chains: Mapping[TableKey, Mapping[str, nft.ChainRecord]] = {}
    """By table and name."""
    rules: Mapping[tuple[TableKey, str], tuple[nft.RuleRecord, ...]] = {}
    """By table and chain, in order."""
    sets: Mapping[tuple[TableKey, str], nft.SetRecord] = {}
    """By table and name."""
    elements: Mapping[tuple[TableKey, str], tuple[nft.ElementRecord, ...]] = {}
    """By table and set; a set that is too long isn't there."""
    legacy: tuple[str, ...] = ()
    """Tables that iptables has outside of nf_tables: `ip_tables: filter`."""


def is_foreign(table: TableKey) -> bool:
    """True for a table of somebody else that may see a pod's packets, and isn't kube-proxy's."""
    return table[0] in FAMILIES and table not in _KNOWN


def read(socket: NetlinkSocket, proc: Path = Path("/proc/thread-self/net")) -> Iterator[Ruleset | None]:
    """All of it, bit by bit: None where it may pause, at last the tables. Raises OSError where the kernel refuses."""
    reader = _Reader(socket)
    yield from reader.read()
    yield Ruleset(
        chains=reader.chains, rules={key: tuple(found) for key, found in reader.rules.items()}, sets=reader.sets,
        elements=reader.elements, legacy=tuple(_legacy(proc)),
    )  # fmt: skip


class _Reader:
    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self.chains: dict[TableKey, dict[str, nft.ChainRecord]] = {}
        self.rules: dict[tuple[TableKey, str], list[nft.RuleRecord]] = {}
        self.sets: dict[tuple[TableKey, str], nft.SetRecord] = {}
        self.elements: dict[tuple[TableKey, str], tuple[nft.ElementRecord, ...]] = {}

    def read(self) -> Iterator[None]:
        tables = map(nft.parse_table, self._socket.dump(nft.get_tables(nft.ANY)))
        found = {(table.family, table.name) for table in tables if not table.flags & nft.DORMANT}
        foreign = set(filter(is_foreign, found))
        for family in {family for family, _ in foreign}:
            yield from self._read_chains(family, foreign)
        for table, chains in self.chains.items():
            if any(chain.hook is not None for chain in chains.values()):
                yield from self._read_rules(table)
                yield from self._read_sets(table)

    def _read_chains(self, family: int, foreign: set[TableKey]) -> Iterator[None]:
        for body in self._each(nft.get_chains(family)):
            if body is not None:
                chain = nft.parse_chain(body)
                if (family, chain.table) in foreign:
                    self.chains.setdefault((family, chain.table), {})[chain.name] = chain
            yield None

    def _read_rules(self, table: TableKey) -> Iterator[None]:
        family, name = table
        for body in self._each(nft.get_rules(name, family)):
            if body is not None:
                rule = nft.parse_rule(body)
                self.rules.setdefault((table, rule.chain), []).append(rule)
            yield None

    def _read_sets(self, table: TableKey) -> Iterator[None]:
        family, name = table
        records = [nft.parse_set(body) for body in self._socket.dump(nft.get_sets(name, family))]
        for record in records:
            self.sets[table, record.name] = record
            elements: list[nft.ElementRecord] = []
            for body in self._each(nft.get_elements(name, record.name, family)):
                if body is not None and len(elements) <= ELEMENTS_MOST:
                    elements.extend(nft.parse_elements(body))
                yield None
            if len(elements) <= ELEMENTS_MOST:
                self.elements[table, record.name] = tuple(elements)

    def _each(self, message: Message) -> Iterator[memoryview | None]:
        """The bodies of a dump; None where there is nothing yet."""
        for step in self._socket.dump_slices(message):
            yield from step or (None,)


def _legacy(proc: Path) -> Iterator[str]:
    for name in _LEGACY:
        try:
            text = (proc / name).read_text()
        except FileNotFoundError:  # this kernel has none
            continue
        yield from (f"{name.removesuffix('_names')}: {table}" for table in text.split())
