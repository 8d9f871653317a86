"""What is rendered parses back to the same rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.dialects import nftables as dialect
from calipy.felix.objects import fingerprint
from calipy.felix.rules import values as v
from calipy.model.origins import Origin
from calipy.netlink import attributes as nla
from calipy.netlink import nf_tables as nft

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=15)
sides = st.sampled_from(["source", "destination"])
directions = st.sampled_from(["in", "out"])
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(lambda a: nla.as_address(a.packed))
networks = st.sampled_from(["10.0.0.0/8", "192.0.2.0/25", "0.0.0.0/0", "fe80::/10", "2001:db8::/127", "::/0"])
ports = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: (min(pair), max(pair)))
bits = st.integers(1, 0xFFFFFFFF)
states = st.lists(
    st.sampled_from(["invalid", "established", "related", "new", "untracked"]), min_size=1, unique=True
).map(lambda found: tuple(s for s in ("invalid", "established", "related", "new", "untracked") if s in found))
matches = st.one_of(
    st.builds(v.Interface, directions, names, st.booleans(), st.booleans()),
    st.builds(v.Family, st.sampled_from([4, 6])),
    st.builds(v.Address, sides, addresses | networks, st.booleans()),
    st.builds(v.InSet, sides, names, st.sampled_from([4, 6]), st.booleans()),
    st.builds(v.OwnSource, names, st.sampled_from([4, 6]), st.booleans()),
    st.builds(v.Protocol, st.integers(0, 255), st.booleans()),
    ports.flatmap(lambda pair: st.builds(v.Ports, sides, st.just(pair[0]), st.just(pair[1]), st.booleans())),
    st.builds(v.InPorts, sides, names, st.booleans()),
    st.builds(v.InEndpoints, sides, names, st.sampled_from([4, 6]), st.booleans()),
    st.builds(v.IcmpType, st.integers(0, 127), st.integers(128, 255), st.booleans()),
    st.integers(0, 255).flatmap(lambda type_: st.builds(v.IcmpType, st.just(type_), st.just(type_), st.booleans())),
    st.builds(v.IcmpCode, st.integers(0, 255), st.integers(0, 255), st.booleans()),
    st.builds(v.ConnectionState, states),
    st.just(v.LocalSource()),
    st.builds(v.Marked, bits),
)
rates = st.builds(v.Rate, st.integers(1, 9999), st.sampled_from([1, 60, 3600, 86400]), st.integers(1, 9999))
actions = st.one_of(
    st.sampled_from([v.Accept(), v.Drop(), v.Reject(), v.Return(), v.NoTrack()]),
    st.builds(v.Jump, names),
    st.builds(v.Goto, names),
    st.builds(v.Dispatch, names, directions),
    st.builds(v.Ask, sides, names, names, st.sampled_from([4, 6])),
    st.builds(v.Pass, bits),
    st.builds(v.ClearMark, bits),
    st.builds(v.Log, names, st.none() | rates),
    st.builds(v.Masquerade, st.none() | ports),
    st.builds(v.SourceNat, addresses, st.none() | ports),
)
rules = st.builds(
    v.Rule,
    st.lists(matches, max_size=4).map(tuple),
    actions,
    st.builds(Origin, names, st.text(max_size=300)),
    st.booleans(),
)


@given(rules)
def test_parse_undoes_render(rule: v.Rule) -> None:
    parts = tuple(nft.parse_expressions(b"".join(dialect.render(rule))))
    assert dialect.parse(parts, rule.origin) == rule


@given(rules)
def test_user_data_fits_and_tells_the_fingerprint(rule: v.Rule) -> None:
    data = dialect.user_data(rule)
    assert len(data) <= 256
    assert dialect.fingerprint_of(data) == fingerprint(rule).hex()


def test_a_dispatch_rule_in_bytes() -> None:
    rule = v.Rule((), v.Dispatch("m", "in"), Origin("static", "dispatch"))
    names_found = [part.name for part in nft.parse_expressions(b"".join(dialect.render(rule)))]
    assert names_found == ["counter", "meta", "lookup"]
    uncounted = v.Rule((), v.Dispatch("m", "in"), Origin("static", "dispatch"), counted=False)
    assert [part.name for part in nft.parse_expressions(b"".join(dialect.render(uncounted)))] == ["meta", "lookup"]
    assert dialect.user_data(rule)[0] == 0
    assert nla.as_text(dialect.user_data(rule)[2:]).endswith(" static dispatch")


def expression_names(*matches: v.Match) -> list[str]:
    rule = v.Rule(matches, v.Drop(), Origin("test"))
    return [part.name for part in nft.parse_expressions(b"".join(dialect.render(rule)))]


def test_the_family_is_tested_once_for_addresses_that_follow_each_other() -> None:
    source, target = v.InSet("source", "a", 4), v.InEndpoints("destination", "b", 4)
    assert expression_names(source, target) == [
        "meta", "cmp", "payload", "lookup", "payload", "meta", "payload", "lookup", "counter", "immediate"
    ]  # fmt: skip
    assert expression_names(source, v.Protocol(6), target).count("cmp") == 2
    assert expression_names(source, v.InSet("source", "a", 6)).count("cmp") == 2


def test_a_family_that_a_match_has_said_is_not_tested_again_for_an_address() -> None:
    interface, source = v.Interface("in", "cali", prefix=True), v.InSet("source", "a", 4)
    assert expression_names(v.Family(4), interface, source).count("meta") == 2
    assert expression_names(v.Family(4), source).count("meta") == 2, "or it would read as the address's own"
    assert expression_names(v.Family(6), interface, source).count("meta") == 3


def test_the_incoming_interface_is_loaded_once_for_a_pair_that_follows() -> None:
    interface, pair = v.Interface("in", "cali", prefix=True), v.OwnSource("pairs", 4, negated=True)
    once = ["meta", "cmp", "meta", "cmp", "payload", "lookup", "counter", "immediate"]
    assert expression_names(v.Family(4), interface, pair) == once
    assert expression_names(v.Family(4), v.Interface("out", "cali"), pair).count("meta") == 3, "the other's name"
    assert expression_names(interface, pair).count("meta") == 3, "the family's test is in between"
    assert expression_names(v.Family(4), interface, v.Protocol(6), pair).count("meta") == 4


def test_one_port_is_compared_and_several_are_a_range() -> None:
    assert expression_names(v.Ports("source", 80, 80))[1] == "cmp"
    assert expression_names(v.Ports("source", 80, 81))[1] == "range"


def test_prefixes_end_where_the_next_begins() -> None:
    assert dialect.interval("prefixes", "10.0.0.0/24") == (bytes([10, 0, 0, 0]), bytes([10, 0, 1, 0]))
    assert dialect.interval("prefixes", "255.0.0.0/8") == (bytes([255, 0, 0, 0]), None)
    assert dialect.interval("prefixes", "::/0") == (bytes(16), None)


def test_ranges_of_ports_end_before_the_next_port() -> None:
    assert dialect.interval("ports", "80") == (b"\0\x50", b"\0\x51")
    assert dialect.interval("ports", "8000-8080") == (b"\x1f\x40", b"\x1f\x91")
    assert dialect.interval("ports", "0-65535") == (b"\0\0", None)


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        ("ports", "0"), ("ports", "443"), ("ports", "8000-8080"), ("ports", "65535"),
        ("prefixes", "10.0.0.1"), ("prefixes", "fd00::1"), ("prefixes", "10.0.0.0/9"), ("prefixes", "::/0"),
        ("prefixes", "fd00::/127"),
    ],
)  # fmt: skip
def test_a_range_between_two_keys_is_the_member_that_it_came_from(kind: str, member: str) -> None:
    start, beyond = dialect.interval(kind, member)
    last = int.from_bytes(beyond, "big") - 1 if beyond is not None else (1 << 8 * len(start)) - 1
    assert list(dialect.members(kind, start, last.to_bytes(len(start), "big"))) == [member]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("addresses", "10.0.0.1"), ("addresses", "fd00::1"), ("interfaces", "cali0123456789a"),
        ("endpoints", "10.0.0.1,tcp:80"), ("endpoints", "fd00::1,sctp:65535"), ("endpoints", "10.0.0.1,136:0"),
        ("masks", "5"), ("masks", "4294967295"), ("sources", "cali1 10.0.0.1"), ("sources", "cali0123456789a fd00::1"),
    ],
)  # fmt: skip
def test_an_elements_key_is_its_name_in_bytes(kind: str, key: str) -> None:
    assert dialect.element_name(kind, next(dialect.element_keys(kind, [key]))) == key


@pytest.mark.parametrize("member", ["10.0.0.1 1", "fd00::1 4294967295"])
def test_a_member_of_a_map_is_its_key_and_value_in_bytes(member: str) -> None:
    assert dialect.asker_name(*dialect.asker(member)) == member
