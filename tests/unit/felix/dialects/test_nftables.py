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
    ports.flatmap(lambda pair: st.builds(v.Ports, sides, st.just(pair[0]), st.just(pair[1]))),
    st.builds(v.IcmpType, st.integers(0, 127), st.integers(128, 255)),
    st.builds(v.ConnectionState, states),
    st.just(v.LocalSource()),
)
actions = st.one_of(
    st.sampled_from([v.Accept(), v.Drop(), v.Reject(), v.Return(), v.NoTrack()]),
    st.builds(v.Jump, names),
    st.builds(v.Goto, names),
    st.builds(v.Dispatch, names, directions),
    st.builds(v.Masquerade, st.none() | ports),
    st.builds(v.SourceNat, addresses, st.none() | ports),
)
rules = st.builds(
    v.Rule, st.lists(matches, max_size=4).map(tuple), actions, st.builds(Origin, names, st.text(max_size=300))
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
    assert dialect.user_data(rule)[0] == 0
    assert nla.as_text(dialect.user_data(rule)[2:]).endswith(" static dispatch")


def test_prefixes_end_where_the_next_begins() -> None:
    assert dialect.interval("10.0.0.0/24") == (bytes([10, 0, 0, 0]), bytes([10, 0, 1, 0]))
    assert dialect.interval("255.0.0.0/8") == (bytes([255, 0, 0, 0]), None)
    assert dialect.interval("::/0") == (bytes(16), None)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("addresses", "10.0.0.1"), ("addresses", "fd00::1"), ("interfaces", "cali0123456789a"),
        ("sources", "cali1 10.0.0.1"), ("sources", "cali0123456789a fd00::1"),
    ],
)  # fmt: skip
def test_an_elements_key_is_its_name_in_bytes(kind: str, key: str) -> None:
    assert dialect.element_name(kind, dialect.element_key(kind, key)) == key
