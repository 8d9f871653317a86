"""The node's address: given, or found by each of calico/node's methods; and what is said of what was considered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from calipy.model.links import Link, LinkAddress
from calipy.node.addresses import Choice, Evidence, NoAddress, choose
from calipy.settings import Autodetection, read

TABLE = yaml.safe_load((Path(__file__).parents[2] / "cases" / "node_addresses.yaml").read_text())
HOST = [line.split() for line in TABLE["host"].splitlines()]


def evidence(known: str) -> Evidence:
    links = {
        int(index): Link(
            index=int(index), name=name, kind="", up=state == "up", carrier=True, mtu=1500, mac="", alias=""
        )
        for index, name, state, *_ in HOST
    }
    pairs = ((int(line[0]), address.split("/")) for line in HOST for address in line[3:])
    more: dict[str, Any] = dict(part.split("=") for part in known.replace("_", " ").split(", ") if part)
    if "internal" in more:
        more["internal"] = tuple(more["internal"].split(","))
    addresses = [LinkAddress(index, address, int(length)) for index, (address, length) in pairs]
    return Evidence(links=links, addresses=addresses, **more)


def chosen(case: dict[str, str]) -> Choice | None:
    asked, method = case["asked"].split()
    variable, value = asked.split("=")
    settings = read({"NODENAME": "n1", f"{variable}_AUTODETECTION_METHOD": method})
    family, how = (4, settings.ip_method) if variable == "IP" else (6, settings.ip6_method)
    return choose(value, how, family, evidence(case.get("known", "")))


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: f"{case['asked']} {case.get('known', '')}")
def test_the_table(case: dict[str, str]) -> None:
    considered = tuple(case.get("considered", "").splitlines())
    if "error" in case:
        with pytest.raises(NoAddress) as raised:
            chosen(case)
        said = str(raised.value)
        assert [part for part in case["error"].splitlines() if part not in said] == []
        assert considered in ((), raised.value.considered)
        assert "; ".join(considered) in said
        return
    choice = chosen(case)
    assert (choice.address if choice else None) == case["taken"]
    if choice:
        assert choice.reason == case["because"]
        assert considered in ((), choice.considered)


def test_a_host_without_any_address_is_told_so() -> None:
    with pytest.raises(NoAddress, match=r"no IPv6 address for this node by first-found \(no link has one\); set IP6"):
        choose("autodetect", Autodetection(), 6, Evidence(links={}, addresses=()))
