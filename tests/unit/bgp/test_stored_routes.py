"""Lines of `show adj-rib in|out json` as ExaBGP 5.0.15 wrote them, and the UPDATE that each stands for."""

from __future__ import annotations

import pytest

from calipy.bgp.messages import Path, Updated, decode_route

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
