"""The range of a default pool, by the traces that clusterCIDR leaves."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from calipy.node.pool_ranges import Traces, find

TABLE = yaml.safe_load((Path(__file__).parents[2] / "cases" / "pool_ranges.yaml").read_text())


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["title"])
def test_the_table(case: dict[str, Any]) -> None:
    traces = Traces(
        pod_subnet=case.get("podSubnet", ""),
        pod_cidrs={node: tuple(cidrs) for node, cidrs in case.get("podCIDRs", {}).items()},
        hosts=tuple(case.get("hosts", ())),
        service=case.get("service", ""),
    )
    v4, v6 = find(4, case.get("blocks", 26), traces), find(6, 122, traces)
    assert f"{v4.cidr} {v4.source}".strip() == case.get("IPv4", "")
    assert f"{v6.cidr} {v6.source}".strip() == case.get("IPv6", "")
    said = "\n".join(v4.doubts)
    assert [part for part in case.get("not", ()) if part not in said] == []
    assert bool(v4.doubts) == ("not" in case)


@given(st.integers(8, 20), st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=5))
def test_what_covers_podcidrs_is_a_part_of_the_clustercidr_that_they_are_of(length: int, numbers: list[int]) -> None:
    cluster = ipaddress.ip_network(f"100.0.0.0/{length}")
    first = int(cluster.network_address)
    cidrs = {str(ipaddress.ip_network((first + (number % 2 ** (24 - length)) * 256, 24))) for number in numbers}
    found = find(4, 26, Traces(pod_cidrs={f"n{cidr}": (cidr,) for cidr in cidrs}))
    taken = ipaddress.ip_network(found.cidr)
    assert taken.subnet_of(cluster)  # type: ignore[arg-type]
    assert all(ipaddress.ip_network(cidr).subnet_of(taken) for cidr in cidrs)  # type: ignore[arg-type]
