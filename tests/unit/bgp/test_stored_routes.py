"""What ExaBGP 5.0.15 says of routes that it has already: its own store's, and those that a peer tells again."""

from __future__ import annotations

import pytest

from calipy.bgp.messages import EndOfRib, Message, Path, Updated, decode, decode_route

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


@pytest.mark.parametrize("line", [b"", b"done\n", b"{}", PLAIN.replace(b"unicast", b"flow"), PLAIN[:-20]])
def test_anything_else_is_none(line: bytes) -> None:
    assert decode_route(line) is None


REFRESH = (
    b'{ "exabgp": "5.0.0", "time": 9.5, "host" : "vm", "pid" : 1, "ppid" : 1, "counter": 9, "type": "refresh", '
    b'"neighbor": { "address": { "local": "10.9.0.2", "peer": "10.9.0.1" }, "asn": { "local": 65000, "peer": 65000 }, '
    b'"router-id": "10.9.0.2" , "direction": "receive", "route-refresh": { "afi": "ipv4", "safi": "unicast", '
    b'"subtype": "end" } } }\n'
)


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        (REFRESH, (EndOfRib(peer="10.9.0.1", family=4, time_s=9.5),)),
        (REFRESH.replace(b"ipv4", b"ipv6"), (EndOfRib(peer="10.9.0.1", family=6, time_s=9.5),)),
        (REFRESH.replace(b'"end"', b'"begin"'), ()),
        (REFRESH.replace(b'"end"', b'"query"'), ()),
        (REFRESH.replace(b"unicast", b"flow"), ()),
    ],
)
def test_the_end_of_what_a_peer_tells_again(line: bytes, messages: tuple[Message, ...]) -> None:
    assert decode(line) == messages
