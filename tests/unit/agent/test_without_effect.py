"""What has no effect is told once."""

from __future__ import annotations

import pytest

from calipy.agent.feed import IDLE
from calipy.agent.without_effect import WithoutEffect
from calipy.resources import bgp_configurations, felix_configurations
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Key, ObjectMeta
from tests.unit.resources.objects import made


def test_fields_that_nothing_reads_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    found, spec = WithoutEffect(), {"bpfEnabled": True, "wireguardEnabled": True, "vxlanMTU": 1400}
    for _ in range(2):
        found.felix_fields([made(felix_configurations.KIND, spec, "default")])
    assert caplog.messages == [
        "FelixConfiguration/default: nothing reads bpfEnabled, wireguardEnabled: CalIPy has no such part"
    ]


def test_fields_of_bgp_that_nothing_reads_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    found, spec = WithoutEffect(), {"bindMode": "None", "logSeverityScreen": "Info", "ignoredInterfaces": ["eth1"]}
    for _ in range(2):
        found.bgp_fields([made(bgp_configurations.KIND, spec, "default")])
    assert caplog.messages == [
        "BGPConfiguration/default: nothing reads bindMode, ignoredInterfaces: CalIPy has no such part"
    ]


def test_ipip_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    found = WithoutEffect()
    for mode in ("Never", "Always", "CrossSubnet"):
        spec = IPPoolSpec(cidr="10.200.0.0/24", ipip_mode=mode)
        found.encapsulation([IPPool(metadata=ObjectMeta(name="old"), spec=spec)])
    (said,) = caplog.messages
    assert said.startswith("IPPool/old: ipipMode Always has no effect")


@pytest.mark.parametrize("kind", IDLE)
def test_objects_of_kinds_that_nothing_follows_are_told_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    found, many = WithoutEffect(), [Key(kind, f"{number}") for number in range(7)]
    for keys in ([], many[:1], many[:1], many):
        found.objects(kind, keys)
    first, second = (message.partition(": without effect: ") for message in caplog.messages)
    assert (first[0], second[0]) == (f"{kind}/0", f"{kind}/1, {kind}/2, {kind}/3, {kind}/4, {kind}/5 and 1 more")
    assert first[2] == second[2] != ""
