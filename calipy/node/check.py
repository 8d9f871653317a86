"""What is wrong with this host: findings, each with whom it is about, words and a remedy.

So far of one kind: somebody else's packet filter drops what policy allows. In nf_tables each table must accept a
packet, so a drop anywhere wins over our accept.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from calipy.netlink import nf_tables as nft
from calipy.node.foreign_rules import ForeignRule, Said
from calipy.node.rulesets import FAMILIES, Ruleset, TableKey
from calipy.node.ways import FORWARDED, Hold, Hook, Pods, Way, at, both, covers, either, ways
from calipy.resources.cidrs import family_of

Severity = Literal["error", "warning", "notice"]
"""Pods' connections fail; some do, or may; only some by where they come from or go to outside of the cluster."""

FOREIGN_DROP, LEGACY_TABLES = "foreign-drop", "legacy-tables"
CHECKS = (FOREIGN_DROP, LEGACY_TABLES)
REPORTER = "Checks"
"""As whom findings are reported to health."""
_KUBERNETES = "KUBE-"
"""Chains that kube-proxy and kubelet write into iptables' tables begin so: they reject what goes to services without
endpoints, and what came by no way of theirs."""
_HOOKS: dict[int, Hook] = {number: name for name, number in nft.HOOKS.items()}  # type: ignore[misc]
_DEVICE_HOOKS: dict[tuple[int, int], Hook] = {
    (nft.NETDEV, 0): "ingress",
    (nft.NETDEV, 1): "egress",
    (nft.INET, 5): "ingress",
}
_SEVERITIES: dict[Hold, Severity] = {"always": "error", "some": "warning", "unread": "warning", "far": "notice"}
_VERBS: dict[Hold, str] = {
    "always": "drops", "some": "drops some of", "unread": "may drop", "far": "drops some of",
}  # fmt: skip
_FAMILY_OF = {nft.IPV4: (4,), nft.IPV6: (6,), nft.INET: (4, 6), nft.NETDEV: (4, 6)}
_IPTABLES = {nft.IPV4: "iptables", nft.IPV6: "ip6tables"}
_IPTABLES_TABLES = ("filter", "mangle", "raw", "security")


class Finding(Struct, frozen=True, gc=False, kw_only=True, order=True):
    """One thing that is wrong with this host."""

    check: str
    """Which of CHECKS has found it."""
    subject: str
    """What it is about, as its own tool names it: `ip filter FORWARD, policy`."""
    words: str
    """What is wrong."""
    remedy: str
    severity: Severity

    def __str__(self) -> str:
        return f"{self.subject}: {self.words}; {self.remedy}"


def judge(rules: Ruleset, pods: Pods) -> Iterator[Finding | None]:
    """All findings, bit by bit: None where it may pause."""
    found = tuple(ways(pods))
    for table in sorted(rules.chains):
        yield from _Table(table, rules, pods, found).findings()
    for name in rules.legacy:
        yield _legacy(name)


def _legacy(name: str) -> Finding:
    module, _, table = name.partition(": ")
    command = f"{module.replace('_', '')}-legacy"
    return Finding(
        check=LEGACY_TABLES, subject=f"{command} {table}", words="its rules are not read, and may drop pods' packets",
        remedy=f"list them: {command}-save -t {table}; see that they accept what goes from and to pods",
        severity="warning",
    )  # fmt: skip


class _Dropped:
    """What one rule, or one policy, drops."""

    def __init__(self, base: nft.ChainRecord) -> None:
        self.base = base
        self.ways: dict[tuple[str, int], Hold] = {}
        """By name and family."""
        self.from_pods = self.to_pods = self.rest = False
        """Whose packets; and whether others were accepted before."""

    def add(self, way: Way, hold: Hold, rest: bool) -> None:
        """A way on which it drops; `rest`: what rules before it have left."""
        self.rest |= rest
        key = way.name, way.family
        self.ways[key] = either((self.ways.get(key, "never"), hold))
        self.from_pods |= way.from_pods
        self.to_pods |= not way.from_pods

    @property
    def hold(self) -> Hold:
        """What it does at worst."""
        return either(self.ways.values())

    def told(self) -> str:
        """`drops what goes from pods to outside (IPv4)`, the worst first."""
        return " and ".join(
            f"{verb} what goes {_listed([way for way, found in self.ways.items() if found == hold])}"
            for hold, verb in _VERBS.items()
            if hold in self.ways.values()
        )


class _Table:
    def __init__(self, key: TableKey, rules: Ruleset, pods: Pods, ways_: Sequence[Way]) -> None:
        self._key = key
        self._rules = rules
        self._pods = pods
        self._ways = ways_
        self._chains = rules.chains[key]
        self._read: dict[str, tuple[ForeignRule, ...]] = {}
        self._dropped: dict[tuple[str, ForeignRule | None], _Dropped] = {}

    def findings(self) -> Iterator[Finding | None]:
        """Of this table."""
        for chain in self._chains.values():
            hook = self._hook(chain)
            for way in self._ways if hook is not None else ():
                if hook in way.hooks and self._sees(chain, hook, way):
                    yield from _Walk(self, chain, at(way, hook)).run()
        for (chain_name, rule), dropped in self._dropped.items():
            yield self._finding(chain_name, rule, dropped)

    def _hook(self, chain: nft.ChainRecord) -> Hook | None:
        """Where packets come into a chain by themselves; None: nowhere, or where no pod's packet comes by."""
        if chain.hook is None:
            return None
        known = _DEVICE_HOOKS.get((self._key[0], chain.hook.number))
        return known if known or self._key[0] == nft.NETDEV else _HOOKS.get(chain.hook.number)

    def _sees(self, chain: nft.ChainRecord, hook: Hook, way: Way) -> bool:
        """True if packets of a way come through a base chain at one of its hooks."""
        if way.family not in _FAMILY_OF[self._key[0]]:
            return False
        if hook not in ("ingress", "egress"):
            return True
        passed = way.enters if hook == "ingress" else way.leaves
        return any(covers(passed, device) for device in chain.devices)

    def rules(self, chain: str) -> Iterator[None]:
        """Reads a chain's rules, bit by bit, if they are not read yet."""
        if chain not in self._read:
            found = []
            for record in self._rules.rules.get((self._key, chain), ()):
                found.append(ForeignRule(record, self._rules))
                yield None
            self._read[chain] = tuple(found)

    def read(self, chain: str) -> tuple[ForeignRule, ...]:
        """A chain's rules, once `rules` has ended."""
        return self._read[chain]

    def dropped(self, base: nft.ChainRecord, chain: str, rule: ForeignRule | None) -> _Dropped:
        """What a rule, or with None a base chain's policy, drops so far."""
        return self._dropped.setdefault((chain, rule), _Dropped(base))

    # --- words ---

    def _finding(self, chain: str, rule: ForeignRule | None, dropped: _Dropped) -> Finding:
        subject = f"{FAMILIES[self._key[0]]} {self._key[1]} {chain}"
        subject += ", policy" if rule is None else f", handle {rule.handle}"
        if rule is not None and rule.comment:
            subject += f' ("{rule.comment}")'
        words = dropped.told()
        if dropped.rest:
            words += ", but for what a rule before accepts"
        if chain != dropped.base.name:
            words += f"; it is reached from {dropped.base.name}"
        if rule is not None and rule.unread and "unread" in dropped.ways.values():
            words += f"; it depends on {', '.join(rule.unread)}, which is not known here"
        return Finding(
            check=FOREIGN_DROP, subject=subject, words=words, remedy=self._remedy(dropped),
            severity=_SEVERITIES[dropped.hold],
        )  # fmt: skip

    def _remedy(self, dropped: _Dropped) -> str:
        family, table = self._key
        base = dropped.base.name
        if table == "firewalld":
            nets = " ".join(f"--add-source={net}" for net in self._pods.nets)
            return f"trust the pools: firewall-cmd --permanent --zone=trusted {nets}; firewall-cmd --reload"
        if family in _IPTABLES and table in _IPTABLES_TABLES:
            found = self._matches(dropped, {"in": "-i", "out": "-o", 4: "-d", 6: "-d"}, "+")
            commands = [f"{_IPTABLES[family]} -t {table} -I {base} {match} -j ACCEPT" for match in found]
        else:
            name = f"{FAMILIES[family]} {table} {base}"
            words = {"in": "iifname", "out": "oifname", 4: "ip daddr", 6: "ip6 daddr"}
            commands = [f"nft insert rule {name} {match} accept" for match in self._matches(dropped, words, "*")]
        return f"accept it before: {'; '.join(commands)}"

    def _matches(self, dropped: _Dropped, words: Mapping[object, str], any_: str) -> Iterator[str]:
        """How rules say whose packets they are, side by side: by the pods' interfaces, or before it is known by which
        one a packet leaves, by its destination."""
        prefixes = [f'"{prefix}{any_}"' for prefix in self._pods.prefixes]
        if dropped.from_pods:
            yield from (f"{words['in']} {name}" for name in prefixes)
        if dropped.to_pods and dropped.base.hook is not None:
            if _HOOKS.get(dropped.base.hook.number) in ("prerouting", "input") or dropped.base.devices:
                for net in self._pods.nets:
                    if family_of(net) in _FAMILY_OF[self._key[0]]:
                        yield f"{words[family_of(net)]} {net}"
            else:
                yield from (f"{words['out']} {name}" for name in prefixes)


def _listed(ways_: Iterable[tuple[str, int]]) -> str:
    """`between pods of this node, from pods to outside (IPv4)`."""
    families: dict[str, list[int]] = {}
    for name, family in ways_:
        families.setdefault(name, []).append(family)
    alike: dict[str, list[str]] = {}
    for name, found in families.items():
        alike.setdefault(" and ".join(f"IPv{family}" for family in found), []).append(name)
    return ", ".join(f"{_named(names)} ({spelled})" for spelled, names in alike.items())


def _named(names: Sequence[str]) -> str:
    return "from and to pods" if set(names) == set(FORWARDED) else ", ".join(names)


class _Walk:
    """A way's packets through a base chain, and the chains that it leads to."""

    def __init__(self, table: _Table, base: nft.ChainRecord, way: Way) -> None:
        self._table = table
        self._base = base
        self._way = way
        self._ended: dict[tuple[str, Hold], bool] = {}
        self._left: Hold = "always"
        """What is known of those that are still under way: `unread` once a rule may have accepted all."""
        self._rest = False
        """True once a rule has accepted some."""

    def run(self) -> Iterator[None]:
        """Through all of it."""
        yield from self._through(self._base.name, "always")
        ended = self._ended[self._base.name, "always"]
        if not ended and self._base.hook is not None and self._base.hook.policy == nft.DROP:
            self._drop(self._base.name, None, "always")

    def _drop(self, chain: str, rule: ForeignRule | None, hold: Hold) -> None:
        self._table.dropped(self._base, chain, rule).add(self._way, both(hold, self._left), self._rest)

    def _through(self, chain: str, hold: Hold) -> Iterator[None]:
        """Through a chain, once for the same packets; whether nothing comes out of it is noted."""
        if (chain, hold) in self._ended:
            return
        self._ended[chain, hold] = False
        yield from self._table.rules(chain)
        for rule in self._table.read(chain):
            yield None
            for said in rule.said(self._way):
                if said.hold == "never":
                    continue
                ended = yield from self._follow(chain, rule, said, both(hold, said.hold))
                if ended is not None and said.hold == "always":
                    self._ended[chain, hold] = ended
                    return

    def _follow(self, chain: str, rule: ForeignRule, said: Said, hold: Hold) -> Generator[None, None, bool | None]:
        """Does what a rule says; True: that is the packets' end, False: they go back to the chain before, None: on."""
        match said.end:
            case "drop":
                self._drop(chain, rule, hold)
                return True
            case "queue":
                self._drop(chain, rule, both(hold, "unread"))
                return True
            case "accept" | "return":
                self._left = "unread" if hold == "unread" else self._left
                self._rest |= said.end == "accept"
                return said.end == "accept"
            case "jump" | "goto":
                if said.chain.startswith(_KUBERNETES):
                    return None if said.end == "jump" else False
                yield from self._through(said.chain, hold)
                return True if self._ended[said.chain, hold] else None if said.end == "jump" else False
