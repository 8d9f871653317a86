"""A cluster of three nodes to peer in."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from calipy.model.nodes import NodeAddress


def node(name: str, *addresses: str, **others: object) -> NodeAddress:
    """A node at these addresses."""
    by_family = {6 if ":" in address else 4: address for address in addresses}
    return NodeAddress(name=name, addresses=by_family, vxlan={}, **others)  # type: ignore[arg-type]


@pytest.fixture
def three() -> Mapping[str, NodeAddress]:
    """Nodes a, b (both families) and c (IPv4 only)."""
    return {
        "a": node("a", "10.0.0.9/24", "fd00::9/64"),
        "b": node("b", "10.0.0.10/24", "fd00::a/64", labels={"rack": "1"}),
        "c": node("c", "10.0.0.11/24", labels={"rack": "2", "rr": ""}),
    }
