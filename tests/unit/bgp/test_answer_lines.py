"""What ExaBGP 5.0.15 says of peers and routes when it is asked, and of those that a peer tells again."""

from __future__ import annotations

import pytest

from calipy.bgp.answer_lines import decode_neighbors, decode_route
from calipy.bgp.event_lines import decode
from calipy.bgp.messages import EndOfRib, Message, Neighbor, Path, Unreadable, Updated
from tests.unit.bgp.lines import ACCOUNT, LINES, variants

PLAIN = (
    b'{"peer": {"address": "10.9.0.1"}, "route": {"nlri": {"prefix": "10.1.0.0/26", "nexthop": "10.9.0.1", "family": '
    b'{"afi": "ipv4", "safi": "unicast"}}, "attributes": {"origin": "igp", "local-preference": 2147482623, '
    b'"community": ["65000:1"]}}}\n'
)
REFLECTED = (
    b'{"peer": {"address": "10.9.0.2"}, "route": {"nlri": {"prefix": "10.2.0.0/26", "nexthop": "10.9.0.2", "family": '
    b'{"afi": "ipv4", "safi": "unicast"}}, "attributes": {"origin": "igp", "as-path": {"0": {"element": "as-sequence", '
    b'"value": [65001, 65002]}}, "med": 5, "local-preference": 7, "originator-id": "1.1.1.1", "cluster-list": '
    b'["2.2.2.2", "3.3.3.3"]}}}\n'
)


def test_a_route_of_a_node() -> None:
    path = Path(prefix="10.1.0.0/26", next_hop="10.9.0.1", local_preference=2147482623, communities=("65000:1",))
    assert decode_route(PLAIN) == Updated(peer="10.9.0.1", announced=(path,))


def test_a_route_with_all_that_decides() -> None:
    path = Path(
        prefix="10.2.0.0/26",
        next_hop="10.9.0.2",
        as_path=((65001,), (65002,)),
        med=5,
        local_preference=7,
        originator_id="1.1.1.1",
        cluster_list=("2.2.2.2", "3.3.3.3"),
    )
    assert decode_route(REFLECTED) == Updated(peer="10.9.0.2", announced=(path,))


def test_a_route_of_another_family_is_none() -> None:
    assert decode_route(PLAIN.replace(b"unicast", b"flow")) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"done\n",
        b"{}",
        b"\xff",
        PLAIN[:-20],
        PLAIN.replace(b'"address": "10.9.0.1"', b'"address": "somebody"'),
        PLAIN.replace(b'"nexthop": "10.9.0.1"', b'"nexthop": "self"'),
        PLAIN.replace(b'"nexthop": "10.9.0.1"', b'"nexthop": "fd00::1"'),
        PLAIN.replace(b"10.1.0.0/26", b"10.1.0.0/62"),
        PLAIN.replace(b"10.1.0.0/26", b"fd00::/62"),
        PLAIN.replace(b'"igp"', b'"ibgp"'),
        PLAIN.replace(b"2147482623", b'"much"'),
        REFLECTED.replace(b'"0": {', b'"first": {'),
        REFLECTED.replace(b"[65001, 65002]", b"[65001, null]"),
    ],
)
def test_a_wrong_line_is_refused(line: bytes) -> None:
    refused = decode_route(line)
    assert isinstance(refused, Unreadable)
    assert refused.reason


@pytest.mark.parametrize("line", [PLAIN, REFLECTED])
def test_no_wrong_value_in_any_field_of_a_route_ends_anything(line: bytes) -> None:
    for wrong in variants(line):
        assert isinstance(decode_route(wrong), Updated | Unreadable | None)


def test_exabgps_account_of_its_neighbors() -> None:
    assert decode_neighbors(LINES[ACCOUNT]) == (
        Neighbor(
            peer="10.9.0.2",
            local_address="10.9.0.1",
            as_number=64512,
            local_as=64512,
            state="ESTABLISHED",
            router_id="10.9.0.2",
            duration_s=43,
            graceful_restart=True,
            route_refresh=True,
        ),
        Neighbor(peer="fd00:9::2", local_address="fd00:9::1", as_number=65001, local_as=64512, state="IDLE"),
    )


def test_a_wrong_account_is_refused_as_a_whole() -> None:
    wrong = LINES[ACCOUNT].replace(b'"10.9.0.2"', b'"somebody"')
    assert isinstance(decode_neighbors(wrong), Unreadable)
    for line in variants(LINES[ACCOUNT]):
        assert isinstance(decode_neighbors(line), tuple | Unreadable)


REFRESH = (
    b'{ "exabgp": "5.0.0", "time": 9.5, "host" : "vm", "pid" : 1, "ppid" : 1, "counter": 9, "type": "refresh", '
    b'"neighbor": { "address": { "local": "10.9.0.2", "peer": "10.9.0.1" }, "asn": { "local": 65000, "peer": 65000 }, '
    b'"router-id": "10.9.0.2" , "direction": "receive", "route-refresh": { "afi": "ipv4", "safi": "unicast", '
    b'"subtype": "end" } } }\n'
)


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        (REFRESH, (EndOfRib(peer="10.9.0.1", family=4),)),
        (REFRESH.replace(b"ipv4", b"ipv6"), (EndOfRib(peer="10.9.0.1", family=6),)),
        (REFRESH.replace(b'"end"', b'"begin"'), ()),
        (REFRESH.replace(b'"end"', b'"query"'), ()),
        (REFRESH.replace(b"unicast", b"flow"), ()),
    ],
)
def test_the_end_of_what_a_peer_tells_again(line: bytes, messages: tuple[Message, ...]) -> None:
    assert decode(line) == messages
