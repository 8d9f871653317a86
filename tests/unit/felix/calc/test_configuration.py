"""Which value is in force, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from calipy.felix.calc.configuration import merge
from calipy.felix.calc.settings import FelixSettings
from calipy.resources.felix_configurations import FelixConfiguration, Value
from calipy.resources.metadata import ObjectMeta

LABELS = {"rack": "1", "disk": "ssd"}


def objects(**ports: int) -> list[FelixConfiguration]:
    """Objects that set vxlanPort; `rack1` and the like choose by rack."""
    found = []
    for name, port in ports.items():
        real = {"node_n1": "node.n1", "node_n2": "node.n2"}.get(name, name)
        spec: dict[str, object] = {"vxlanPort": port}
        if name.startswith("rack"):
            spec["nodeSelector"] = f"rack == '{name[4]}'"
        found.append(FelixConfiguration(metadata=ObjectMeta(name=real), spec=spec))
    return found


FILE: Mapping[str, Mapping[str, Value]] = {"file": {"vxlanPort": 50}}
BOTH: Mapping[str, Mapping[str, Value]] = {"environment": {"vxlanPort": 60}, "file": {"vxlanPort": 50}}
# objects, file and environment -> the port in force and its source
CASES: dict[str, tuple[list[FelixConfiguration], Mapping[str, Mapping[str, Value]], int, str]] = {
    "nobody says": ([], {}, 4789, ""),
    "the cluster says": (objects(default=10), {}, 10, "FelixConfiguration/default"),
    "a selector that fits wins over the cluster": (
        objects(default=10, rack1=20), {}, 20, "FelixConfiguration/rack1"),
    "a selector that doesn't fit": (objects(default=10, rack2=20), {}, 10, "FelixConfiguration/default"),
    "of two that fit the later name": (objects(rack1b=21, rack1a=22), {}, 21, "FelixConfiguration/rack1b"),
    "the node wins over selectors": (
        objects(node_n1=30, default=10, rack1=20), {}, 30, "FelixConfiguration/node.n1"),
    "another node's": (objects(node_n2=30), {}, 4789, ""),
    "the file wins over objects": (objects(default=10, node_n1=30), FILE, 50, "file"),
    "the environment wins over all": (objects(default=10, node_n1=30), BOTH, 60, "environment"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_precedence(name: str) -> None:
    found, process, port, source = CASES[name]
    settings = merge("n1", found, LABELS, process)
    assert settings.vxlan_port == port
    assert settings.sources.get("vxlanPort", "") == source


def test_each_value_has_its_own_source() -> None:
    default = FelixConfiguration(metadata=ObjectMeta(name="default"), spec={"vxlanPort": 10, "vxlanVNI": 7})
    mine = FelixConfiguration(metadata=ObjectMeta(name="node.n1"), spec={"vxlanVNI": 8})
    settings = merge("n1", [mine, default], {}, {"environment": {"ipv6Support": False}})
    assert settings.sources == {
        "vxlanPort": "FelixConfiguration/default",
        "vxlanVNI": "FelixConfiguration/node.n1",
        "ipv6Support": "environment",
    }
    assert (settings.vxlan_port, settings.vxlan_vni, settings.ipv6_support) == (10, 8, False)


def test_a_selector_follows_the_nodes_labels() -> None:
    rack = objects(rack1=20)
    assert merge("n1", rack, {"rack": "1"}, {}).vxlan_port == 20
    assert merge("n1", rack, {"rack": "2"}, {}).vxlan_port == 4789


def test_null_and_what_has_no_effect_leave_what_was() -> None:
    odd = FelixConfiguration(metadata=ObjectMeta(name="default"), spec={"vxlanPort": None, "bpfEnabled": True})
    assert merge("n1", [odd], {}, {}) == FelixSettings()


def test_unset_in_the_environment_wins_over_an_object() -> None:
    default = FelixConfiguration(metadata=ObjectMeta(name="default"), spec={"natPortRange": "1:9"})
    settings = merge("n1", [default], {}, {"environment": {"natPortRange": None}})
    assert settings.nat_port_range is None


def test_values_of_another_shape() -> None:
    spec: dict[str, object] = {
        "interfacePrefix": "cali,tap", "featureDetectOverride": "ChecksumOffloadBroken=true", "natPortRange": "5:6",
        "externalNodesList": ["10.0.0.1"], "routeRefreshInterval": "1m",
    }  # fmt: skip
    settings = merge("n1", [FelixConfiguration(metadata=ObjectMeta(name="default"), spec=spec)], {}, {})
    assert settings.interface_prefixes == ("cali", "tap")
    assert settings.checksum_offload_broken is True
    assert settings.nat_port_range == (5, 6)
    assert settings.external_nodes == ("10.0.0.1/32",)
    assert settings.route_refresh_interval_s == 60
