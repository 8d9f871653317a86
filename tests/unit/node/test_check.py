"""Packet filters of others, as values, and what is found in them: what drops pods' packets, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from calipy.netlink import attributes as nla
from calipy.netlink import nf_tables as nft
from calipy.node.check import Finding, judge
from calipy.node.rulesets import Ruleset, is_foreign
from calipy.node.ways import Pods

PODS = Pods(
    prefixes=("cali",), nets=("10.244.0.0/16", "fd00:10::/64"), own=("10.9.0.1", "fd00:9::1"), carriers=("eth0",),
    links={1: "lo", 2: "eth0", 3: "cali1", 4: "docker0"},
)  # fmt: skip
DROP, ACCEPT = nft.verdict(nft.DROP), nft.verdict(nft.ACCEPT)
EVERYTHING = "from and to pods (IPv4 and IPv6)"
ALL4 = "from and to pods (IPv4)"
BETWEEN, OTHERS, OUTSIDE = "between pods of this node", "from pods to pods of other nodes", "from pods to outside"
FROM = f"{BETWEEN}, {OTHERS}, {OUTSIDE}"
FROM4 = f"{FROM} (IPv4)"


def name(text: str, key: int = nft.META_IIFNAME, operator: int = nft.EQUAL) -> tuple[bytes, bytes]:
    """`iifname "cali*"`: without its NULs a name is compared as a prefix."""
    value = text[:-1].encode() if text.endswith("*") else text.encode().ljust(16, b"\0")
    return nft.meta(key), nft.compare(value, operator)


def out(text: str, operator: int = nft.EQUAL) -> tuple[bytes, bytes]:
    return name(text, nft.META_OIFNAME, operator)


def family(number: int) -> tuple[bytes, bytes]:
    return nft.meta(nft.META_NFPROTO), nft.compare(bytes((number,)))


def address(side: str, *bytes_: int, operator: int = nft.EQUAL) -> tuple[bytes, ...]:
    """`ip saddr 10.0.0.0/8`: a prefix of whole bytes is loaded short."""
    load = nft.payload(nft.NETWORK_HEADER, 12 if side == "source" else 16, len(bytes_))
    return *family(2), load, nft.compare(bytes(bytes_), operator)


def masked(side: str, value: bytes, mask: bytes) -> tuple[bytes, ...]:
    """`ip saddr 10.240.0.0/12`."""
    load = nft.payload(nft.NETWORK_HEADER, 12 if side == "source" else 16, 4)
    return *family(2), load, nft.bitwise(mask, bytes(4)), nft.compare(value)


def state(*bits: int, operator: int = nft.NOT_EQUAL) -> tuple[bytes, ...]:
    """`ct state invalid`."""
    return nft.ct(nft.CT_STATE), nft.bitwise(sum(bits).to_bytes(4, "little"), bytes(4)), nft.compare(bytes(4), operator)


TCP = (nft.meta(nft.META_L4PROTO), nft.compare(b"\x06"))
PORT_80 = (*TCP, nft.payload(nft.TRANSPORT_HEADER, 2, 2), nft.compare(b"\0\x50"))
MARKED = (nft.meta(nft.META_MARK), nft.compare(b"\x05\0\0\0"))


def iptables(kind: str, name_: str, info: bytes = b"") -> bytes:
    """What iptables writes: `match` or `target`."""
    return nft.expression(kind, nla.string(1, name_), nla.be32(2, 0), nla.attribute(3, info))


def conntrack(bits: int, *, inverted: bool = False) -> bytes:
    """struct xt_conntrack_mtinfo3 with --ctstate."""
    info = bytearray(200)
    info[146], info[148] = 1, int(inverted)
    info[150:152] = bits.to_bytes(2, "little")
    return iptables("match", "conntrack", bytes(info))


class World:
    """A table of somebody else."""

    def __init__(self, table: str = "other", family_: int = nft.INET) -> None:
        self.key = (family_, table)
        self.chains: dict[str, nft.ChainRecord] = {}
        self.rules: dict[Any, list[nft.RuleRecord]] = {}
        self.sets: dict[Any, nft.SetRecord] = {}
        self.elements: dict[Any, tuple[nft.ElementRecord, ...]] = {}
        self._handle = 0

    def base(self, chain: str, hook: str = "forward", policy: int = nft.ACCEPT, number: int = -1) -> World:
        at = nft.Hook(number=nft.HOOKS[hook] if number < 0 else number, priority=0, policy=policy)
        record = nft.parse_chain(nft.chain(self.key[1], chain, at).body)
        self.chains[chain] = structs.replace(record, family=self.key[0])
        return self

    def on(self, chain: str, *devices: str) -> World:
        self.chains[chain] = structs.replace(self.chains[chain], devices=devices)
        return self

    def rule(self, chain: str, *expressions: bytes, comment: str = "") -> World:
        self._handle += 1
        if chain not in self.chains:
            self.chains[chain] = nft.parse_chain(nft.chain(self.key[1], chain).body)
        data = nft.comment(comment) if comment else b""
        record = nft.parse_rule(nft.rule(self.key[1], chain, expressions, data).body + nla.be64(3, self._handle))
        self.rules.setdefault((self.key, chain), []).append(structs.replace(record, family=self.key[0]))
        return self

    def set_(self, set_name: str, length: int, *records: nft.ElementRecord, flags: int = 0) -> World:
        body = nft.set_(self.key[1], set_name, id_=1, key_type=7, key_length=length, flags=flags).body
        self.sets[self.key, set_name] = nft.parse_set(body)
        self.elements[self.key, set_name] = records
        return self

    def findings(self, pods: Pods = PODS) -> list[Finding]:
        rules = Ruleset(
            chains={self.key: self.chains}, rules={key: tuple(found) for key, found in self.rules.items()},
            sets=self.sets, elements=self.elements,
        )  # fmt: skip
        return [each for each in judge(rules, pods) if each is not None]


def world(*rules: Sequence[bytes], hook: str = "forward", policy: int = nft.ACCEPT, table: str = "other") -> World:
    made = World(table).base("c", hook, policy)
    for expressions in rules:
        made.rule("c", *expressions)
    return made


# what | the table | severity and words of each finding
CASES: list[tuple[str, World, list[tuple[str, str]]]] = [
    ("nothing", world(), []),
    ("a rule that drops all", world((DROP,)), [("error", f"drops what goes {EVERYTHING}")]),
    ("a counter before it", world((nft.counter(), DROP)), [("error", f"drops what goes {EVERYTHING}")]),
    ("reject", world((nft.reject(),)), [("error", f"drops what goes {EVERYTHING}")]),
    ("policy drop", world(policy=nft.DROP), [("error", f"drops what goes {EVERYTHING}")]),
    (
        "policy drop behind an accept of pods",
        world((*name("cali*"), ACCEPT), (*out("cali*"), ACCEPT), policy=nft.DROP),
        [],
    ),
    (
        "policy drop behind an accept of what pods send",
        world((*name("cali*"), ACCEPT), policy=nft.DROP),
        [("error", "drops what goes to pods from pods of other nodes, to pods from outside (IPv4 and IPv6)")],
    ),
    (
        "policy drop behind an accept of the pool",
        world((*address("source", 10, 244), ACCEPT), (*address("destination", 10, 244), ACCEPT), policy=nft.DROP),
        [("error", "drops what goes from and to pods (IPv6)")],
    ),
    (
        "policy drop behind an accept that may be theirs",
        world((*MARKED, ACCEPT), policy=nft.DROP),
        [("warning", f"may drop what goes {EVERYTHING}, but for what a rule before accepts")],
    ),
    (
        "policy drop behind an accept of a port",
        world((*PORT_80, ACCEPT), policy=nft.DROP),
        [("error", f"drops what goes {EVERYTHING}, but for what a rule before accepts")],
    ),
    (
        "policy drop behind an accept of something else",
        world((*name("docker0"), ACCEPT), policy=nft.DROP),
        [("error", f"drops what goes {EVERYTHING}")],
    ),
    ("another interface", world((*name("docker0"), DROP)), []),
    ("loopback", world((*name("lo"), DROP), (*name("cali*", operator=nft.NOT_EQUAL), *out("lo"), DROP)), []),
    ("an interface by its index", world((nft.meta(nft.META_IIF), nft.compare(b"\x04\0\0\0"), DROP)), []),
    (
        "the uplink by its index",
        world((nft.meta(nft.META_OIF), nft.compare(b"\x02\0\0\0"), DROP)),
        [("error", "drops what goes from pods to pods of other nodes, from pods to outside (IPv4 and IPv6)")],
    ),
    ("everybody but pods", world((*name("cali*", operator=nft.NOT_EQUAL), *out("cali*", nft.NOT_EQUAL), DROP)), []),
    (
        "one pod",
        world((*name("cali605750b4096"), DROP)),
        [("warning", f"drops some of what goes {FROM} (IPv4 and IPv6)")],
    ),
    ("the pool", world((*address("source", 10, 244), *name("cali*"), DROP)), [("error", f"drops what goes {FROM4}")]),
    (
        "a wider net",
        world((*masked("source", b"\x0a\xf0\0\0", b"\xff\xf0\0\0"), *name("cali*"), DROP)),
        [("error", f"drops what goes {FROM4}")],
    ),
    (
        "a part of the pool",
        world((*address("source", 10, 244, 1), *name("cali*"), DROP)),
        [("warning", f"drops some of what goes {FROM4}")],
    ),
    ("another net as source", world((*address("source", 192, 168), *name("cali*"), DROP)), []),
    (
        "a net outside",
        world((*address("destination", 192, 168), DROP)),
        [("notice", "drops some of what goes from pods to outside (IPv4)")],
    ),
    (
        "all but a net outside",
        world((*address("destination", 192, 168, operator=nft.NOT_EQUAL), *name("cali*"), DROP)),
        [("error", f"drops what goes {BETWEEN}, {OTHERS} (IPv4) and drops some of what goes {OUTSIDE} (IPv4)")],
    ),
    ("loopback's addresses", world((*address("destination", 127), DROP)), []),
    ("a port", world((*PORT_80, DROP)), [("warning", f"drops some of what goes {EVERYTHING}")]),
    ("what belongs to no connection", world((*state(nft.STATE_INVALID), DROP)), []),
    (
        "new connections",
        world((*state(nft.STATE_NEW, nft.STATE_INVALID), DROP)),
        [("error", f"drops what goes {EVERYTHING}")],
    ),
    (
        "all but open connections",
        world((*state(nft.STATE_ESTABLISHED, operator=nft.EQUAL), DROP)),
        [("error", f"drops what goes {EVERYTHING}")],
    ),
    (
        "a mark",
        world((*MARKED, DROP)),
        [("warning", f"may drop what goes {EVERYTHING}; it depends on meta mark, which is not known here")],
    ),
    (
        "something that we don't know",
        world((nft.expression("osf"), DROP)),
        [("warning", f"may drop what goes {EVERYTHING}; it depends on osf, which is not known here")],
    ),
    (
        "no way back to the sender",
        world(
            (nft.fib(nft.FIB_OIF, nft.FIB_SOURCE | nft.FIB_IIF | nft.FIB_PRESENT), nft.compare(b"\0"), DROP),
            hook="prerouting",
        ),
        [],
    ),
    ("a rule behind an accept of all", world((ACCEPT,), (DROP,)), []),
    ("a rule behind a return", world((nft.verdict(nft.RETURN),), (DROP,)), []),
    (
        "input, which pods are kept from anyhow, with open connections",
        world((*state(nft.STATE_ESTABLISHED), ACCEPT), hook="input", policy=nft.DROP),
        [],
    ),
    (
        "input",
        world(hook="input", policy=nft.DROP),
        [("error", "drops what goes from pods answering this node (IPv4 and IPv6)")],
    ),
    (
        "output",
        world((*out("cali*"), DROP), hook="output"),
        [("error", "drops what goes from this node to its pods (IPv4 and IPv6)")],
    ),
    (
        "output asks for no pod's interface",
        world((*name("cali*", operator=nft.NOT_EQUAL), DROP), hook="output"),
        [("error", "drops what goes from this node to its pods (IPv4 and IPv6)")],
    ),
    ("prerouting asks where it leaves", world((*out("cali*"), DROP), hook="prerouting"), []),
    (
        "prerouting asks where it doesn't leave",
        world((*out("lo", nft.NOT_EQUAL), *name("cali*"), DROP), hook="prerouting"),
        [("error", f"drops what goes {FROM} (IPv4 and IPv6)")],
    ),
    (
        "iptables: what belongs to no connection, inverted",
        World("filter", nft.IPV4).base("FORWARD").rule("FORWARD", conntrack(1, inverted=True), *name("cali*"), DROP),
        [("error", f"drops what goes {FROM} (IPv4)")],
    ),
    ("output asks for an incoming interface", world((*name("cali*"), DROP), hook="output"), []),
    (
        "a table of IPv6",
        World(family_=nft.IPV6).base("c", policy=nft.DROP),
        [("error", "drops what goes from and to pods (IPv6)")],
    ),
    (
        "on a pod's link",
        World(family_=nft.NETDEV).base("i", number=0).on("i", "cali1").rule("i", DROP),
        [("error", f"drops what goes {FROM} (IPv4 and IPv6)")],
    ),
    ("on another link", World(family_=nft.NETDEV).base("i", number=0).on("i", "docker0").rule("i", DROP), []),
    (
        "iptables: its own matches",
        World("filter", nft.IPV4)
        .base("FORWARD", policy=nft.DROP)
        .rule("FORWARD", conntrack(1), DROP)
        .rule(
            "FORWARD",
            conntrack(2 | 4, inverted=True),
            iptables("match", "comment", b"new ones\0"),
            iptables("target", "REJECT"),
        ),
        [("error", f"drops what goes {ALL4}")],
    ),
    (
        "iptables: a match that we don't know",
        World("filter", nft.IPV4).base("FORWARD").rule("FORWARD", iptables("match", "addrtype"), DROP),
        [("warning", f"may drop what goes {ALL4}; it depends on match addrtype, which is not known here")],
    ),
    (
        "iptables: a port",
        World("filter", nft.IPV4).base("FORWARD").rule("FORWARD", iptables("match", "tcp"), DROP),
        [("warning", f"drops some of what goes {ALL4}")],
    ),
    (
        "kube-proxy's chains",
        World("filter", nft.IPV4)
        .base("FORWARD")
        .rule("FORWARD", nft.verdict(nft.JUMP, "KUBE-FORWARD"))
        .rule("KUBE-FORWARD", DROP),
        [],
    ),
    (
        "a chain that is jumped to",
        world((*address("source", 10, 244), nft.verdict(nft.JUMP, "d")), (ACCEPT,)).rule("d", *PORT_80, DROP),
        [
            (
                "warning",
                f"drops some of what goes {BETWEEN}, {OTHERS}, to pods from pods of other nodes, {OUTSIDE} (IPv4)"
                "; it is reached from c",
            )
        ],
    ),
    ("a chain that accepts all", world((nft.verdict(nft.JUMP, "d"),), (DROP,)).rule("d", ACCEPT), []),
    (
        "a chain that is gone to, and its policy",
        world((nft.verdict(nft.GOTO, "d"),), (DROP,)).rule("d", nft.verdict(nft.RETURN)),
        [],
    ),
    ("a chain that nobody jumps to", world().rule("d", DROP), []),
    (
        "a set of nets",
        world((*family(2), nft.payload(1, 12, 4), nft.lookup("s"), *name("cali*"), DROP)).set_(
            "s",
            4,
            nft.ElementRecord(key=b"\x0a\0\0\0"),
            nft.ElementRecord(key=b"\x0b\0\0\0", interval_end=True),
            flags=nft.SET_INTERVAL,
        ),
        [("error", f"drops what goes {FROM4}")],
    ),
    (
        "a set of other addresses",
        world((*family(2), nft.payload(1, 12, 4), nft.lookup("s"), DROP)).set_(
            "s", 4, nft.ElementRecord(key=b"\x0a\x09\0\x07"), nft.ElementRecord(key=b"\xc0\0\2\1")
        ),
        [("notice", "drops some of what goes to pods from outside (IPv4)")],
    ),
    (
        "all but a set of other addresses",
        world((*family(2), nft.payload(1, 12, 4), nft.lookup("s", negated=True), *name("cali*"), DROP)).set_(
            "s", 4, nft.ElementRecord(key=b"\xc0\0\2\1")
        ),
        [("error", f"drops what goes {FROM4}")],
    ),
    (
        "a set that is too long",
        world((nft.payload(1, 12, 4), nft.lookup("s"), DROP)),
        [("warning", f"may drop what goes {EVERYTHING}; it depends on set s, which is not known here")],
    ),
    (
        "pairs of interface and address",
        world((*family(2), nft.meta(nft.META_OIFNAME), nft.payload(1, 16, 4, 2), nft.lookup("s"), DROP)).set_(
            "s",
            20,
            nft.ElementRecord(
                key=b"eth0".ljust(16, b"\0") + b"\x0a\0\0\0", key_end=b"eth0".ljust(16, b"\0") + b"\x0a\xff\xff\xff"
            ),
            nft.ElementRecord(
                key=b"docker0".ljust(16, b"\0") + bytes(4), key_end=b"docker0".ljust(16, b"\0") + b"\xff" * 4
            ),
            flags=nft.SET_INTERVAL,
        ),
        [("error", f"drops what goes {OTHERS} (IPv4) and drops some of what goes {OUTSIDE} (IPv4)")],
    ),
    (
        "a map of verdicts",
        world((nft.ct(nft.CT_STATE), nft.lookup_verdict("m")))
        .rule("d", DROP)
        .set_(
            "m",
            4,
            nft.ElementRecord(key=b"\1\0\0\0", verdict=nft.Verdict(nft.DROP)),
            nft.ElementRecord(key=b"\x08\0\0\0", verdict=nft.Verdict(nft.JUMP, "d")),
        ),
        [("error", f"drops what goes {EVERYTHING}; it is reached from c")],
    ),
    (
        "a map of verdicts that doesn't mind",
        world((nft.ct(nft.CT_STATE), nft.lookup_verdict("m"))).set_(
            "m",
            4,
            nft.ElementRecord(key=b"\1\0\0\0", verdict=nft.Verdict(nft.DROP)),
            nft.ElementRecord(key=b"\2\0\0\0", verdict=nft.Verdict(nft.ACCEPT)),
        ),
        [],
    ),
]


@pytest.mark.parametrize(("table", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_what_is_found(table: World, expected: list[tuple[str, str]]) -> None:
    assert [(each.severity, each.words) for each in table.findings()] == expected


def test_a_rule_is_named_as_nft_names_it() -> None:
    made = World("filter", nft.IPV4).base("FORWARD").rule("FORWARD", nft.verdict(nft.JUMP, "mine"))
    (found,) = made.rule("mine", DROP, comment="no pods here").findings()
    assert found.subject == 'ip filter mine, handle 2 ("no pods here")'
    (found,) = World("filter", nft.IPV4).base("FORWARD", policy=nft.DROP).findings()
    assert found.subject == "ip filter FORWARD, policy"


# table | hook | rule | remedy
REMEDIES = [
    (
        "filter",
        nft.IPV4,
        "forward",
        (DROP,),
        'accept it before: iptables -t filter -I c -i "cali+" -j ACCEPT; iptables -t filter -I c -o "cali+" -j ACCEPT',
    ),
    (
        "filter",
        nft.IPV6,
        "forward",
        (*name("cali*"), DROP),
        'accept it before: ip6tables -t filter -I c -i "cali+" -j ACCEPT',
    ),
    (
        "raw",
        nft.IPV4,
        "prerouting",
        (*name("eth0"), DROP),
        "accept it before: iptables -t raw -I c -d 10.244.0.0/16 -j ACCEPT",
    ),
    (
        "own",
        nft.INET,
        "forward",
        (DROP,),
        'accept it before: nft insert rule inet own c iifname "cali*" accept; '
        'nft insert rule inet own c oifname "cali*" accept',
    ),
    (
        "firewalld",
        nft.INET,
        "forward",
        (DROP,),
        "trust the pools: firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16"
        " --add-source=fd00:10::/64; firewall-cmd --reload",
    ),
]


@pytest.mark.parametrize(("table", "number", "hook", "rule", "remedy"), REMEDIES)
def test_the_remedy_is_in_the_tools_own_words(
    table: str, number: int, hook: str, rule: tuple[bytes, ...], remedy: str
) -> None:
    (found,) = World(table, number).base("c", hook).rule("c", *rule).findings()
    assert found.remedy == remedy


def test_where_pods_may_talk_to_the_node_input_counts() -> None:
    made = world((*state(nft.STATE_ESTABLISHED), ACCEPT), hook="input", policy=nft.DROP)
    (found,) = made.findings(structs.replace(PODS, to_node=True))
    assert found.words.startswith("drops what goes from pods to this node (IPv4 and IPv6)")


def test_without_pools_there_is_nothing_to_drop() -> None:
    assert world((DROP,)).findings(structs.replace(PODS, nets=())) == []


def test_iptables_own_tables_are_not_read_and_that_is_said() -> None:
    (found,) = judge(Ruleset(legacy=("ip6_tables: filter",)), PODS)
    assert found is not None
    assert (found.check, found.subject, found.severity) == ("legacy-tables", "ip6tables-legacy filter", "warning")
    assert found.remedy.startswith("list them: ip6tables-legacy-save -t filter;")


@pytest.mark.parametrize(
    ("table", "foreign"),
    [
        ((nft.INET, "calipy"), False), ((nft.INET, "calipy-recheck"), False), ((nft.IPV4, "calipy"), True),
        ((nft.IPV4, "kube-proxy"), False), ((nft.IPV6, "kube-proxy"), False), ((nft.INET, "firewalld"), True),
        ((7, "filter"), False), ((3, "filter"), False),
    ],
)  # fmt: skip
def test_whose_tables_are_looked_at(table: tuple[int, str], foreign: bool) -> None:
    assert is_foreign(table) == foreign
