"""FelixConfiguration: every parameter of Calico's is known, right values are read, wrong ones refused with what is
allowed, the same in objects, environment and file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calipy.felix.calc.configuration import ATTRIBUTES, OTHERS
from calipy.felix.calc.settings import FelixSettings
from calipy.resources.felix_configurations import (
    KIND,
    PARAMETERS,
    FelixConfiguration,
    from_file,
    from_variables,
    values,
)
from calipy.resources.metadata import ObjectMeta, Refused, accept


def configuration(name: str = "default", **spec: object) -> FelixConfiguration:
    return FelixConfiguration(metadata=ObjectMeta(name=name), spec=spec)


# field, value in an object, text in environment and file, what it comes to
RIGHT: list[tuple[str, object, str, object]] = [
    ("interfacePrefix", "cali,tap", "cali,tap", "cali,tap"),
    ("ipv6Support", False, "false", False),
    ("ipv6Support", True, "Yes", True),
    ("ipForwarding", "Disabled", "disabled", "Disabled"),
    ("defaultEndpointToHostAction", "Accept", "ACCEPT", "ACCEPT"),
    ("nftablesFilterDenyAction", "Reject", "reject", "REJECT"),
    ("nftablesMarkMask", 0xFF00, "0xff00", 0xFF00),
    ("logPrefix", "%t %k/%p", "%t %k/%p", "%t %k/%p"),
    ("logActionRateLimit", "100/minute", "100/minute", (100, 60)),
    ("logActionRateLimitBurst", 9999, "9999", 9999),
    ("natOutgoingAddress", "192.0.2.1", "192.0.2.1", "192.0.2.1"),
    ("natPortRange", "33000:33003", "33000:33003", (33000, 33003)),
    ("natPortRange", 33000, "33000", (33000, 33000)),
    ("natOutgoingExclusions", "IPPoolsAndHostIPs", "ippoolsandhostips", "IPPoolsAndHostIPs"),
    ("iptablesNATOutgoingInterfaceFilter", "eth0.100", "eth0.100", "eth0.100"),
    ("iptablesNATOutgoingInterfaceFilter", "eth+", "eth+", "eth+"),
    ("deviceRouteProtocol", 3, "3", 3),
    ("deviceRouteSourceAddressIPv6", "fd00::1", "FD00:0::1", "fd00::1"),
    ("ipv4NormalRoutePriority", 512, "512", 512),
    ("externalNodesList", ["10.0.0.1", "10.1.0.7/16"], "10.0.0.1, 10.1.0.7/16", ("10.0.0.1/32", "10.1.0.0/16")),
    ("vxlanPort", 8472, "8472", 8472),
    ("vxlanVNI", 16777215, "0xffffff", 16777215),
    ("vxlanMTU", 0, "0", 0),
    ("mtuIfacePattern", "^bond", "^bond", "^bond"),
    ("routeRefreshInterval", "1m30s", "90", 90.0),
    ("nftablesRefreshInterval", "0s", "0", 0.0),
    ("programClusterRoutes", "Enabled", "enabled", "Enabled"),
    ("featureDetectOverride", "ChecksumOffloadBroken=true,X=false", "ChecksumOffloadBroken=1",
     ("ChecksumOffloadBroken",)),
    ("logSeverityScreen", "Debug", "DEBUG", "Debug"),
    ("healthPort", 9098, "9098", 9098),
]  # fmt: skip
# field, value in an object, text in environment and file, what the refusal says is allowed
WRONG: list[tuple[str, object, str, str]] = [
    ("interfacePrefix", "cali*", "cali*", "names of 1 to 15"),
    ("nftablesMarkMask", 0x10000, "0x10000", "at least two"),
    ("nftablesMarkMask", 1 << 32, "0x100000000", "32 bits"),
    ("logPrefix", 'a "b"', 'a "b"', "no quotation marks"),
    ("logActionRateLimit", "0/second", "0/second", "1 to 9999"),
    ("logActionRateLimit", "5/week", "5/week", "/day"),
    ("logActionRateLimitBurst", 0, "0", "1 to 9999"),
    ("ipv6Support", "perhaps", "perhaps", "true or false"),
    ("ipForwarding", "On", "On", "Enabled or Disabled"),
    ("defaultEndpointToHostAction", "Reject", "Reject", "DROP, ACCEPT or RETURN"),
    ("nftablesFilterDenyAction", "Accept", "Accept", "DROP or REJECT"),
    ("natOutgoingAddress", "fd00::1", "fd00::1", "an IPv4 address"),
    ("natOutgoingAddress", "10.0.0.256", "10.0.0.256", "an IPv4 address"),
    ("natPortRange", "9:1", "9:1", "a port or first:last"),
    ("natPortRange", "0:9", "0:9", "a port or first:last"),
    ("natPortRange", "1:65536", "1:65536", "a port or first:last"),
    ("natOutgoingExclusions", "None", "nothing", "IPPoolsOnly or IPPoolsAndHostIPs"),
    ("iptablesNATOutgoingInterfaceFilter", "a name too long for it", "a b", "an interface's name"),
    ("deviceRouteProtocol", 256, "256", "0 to 255"),
    ("deviceRouteProtocol", "bird", "bird", "0 to 255"),
    ("deviceRouteSourceAddressIPv6", "10.0.0.1", "10.0.0.1", "an IPv6 address"),
    ("ipv4NormalRoutePriority", 0, "0", "1 to 2147483646"),
    ("externalNodesList", ["10.0.0.0/33"], "10.0.0.0/33", "addresses or CIDRs"),
    ("vxlanPort", 0, "0", "a port, 1 to 65535"),
    ("vxlanPort", 65536, "65536", "a port, 1 to 65535"),
    ("vxlanPort", True, "true", "a port, 1 to 65535"),
    ("vxlanVNI", 16777216, "16777216", "1 to 16777215"),
    ("vxlanMTU", -1, "-1", "0 (detect) to 65535"),
    ("mtuIfacePattern", "(", "(", "a regular expression"),
    ("programClusterRoutes", "Yes", "Yes", "EnabledIPIPOnly"),
    ("featureDetectOverride", "ChecksumOffloadBroken=maybe", "ChecksumOffloadBroken", "Name=true or Name=false"),
    ("logSeverityScreen", "Loud", "Loud", "Trace, Debug"),
]  # fmt: skip


def label(row: object) -> str:
    return str(row)


@pytest.mark.parametrize(("field", "value", "text", "expected"), RIGHT, ids=label)
def test_right_values_come_to_the_same_from_everywhere(field: str, value: object, text: str, expected: object) -> None:
    accepted = accept(KIND, configuration(**{field: value}))
    assert values(accepted) == {field: expected}
    variable = PARAMETERS[field].variable
    assert from_variables({variable: text}) == ({field: expected}, [])
    assert from_file(f"[global]\n# a comment\n{variable.removeprefix('FELIX_').capitalize()} = {text}\n") == (
        {field: expected},
        [],
    )


@pytest.mark.parametrize(("field", "value", "text", "allowed"), WRONG, ids=label)
def test_wrong_values_are_refused_with_name_value_and_what_is_allowed(
    field: str, value: object, text: str, allowed: str
) -> None:
    with pytest.raises(Refused) as refused:
        accept(KIND, configuration(**{field: value}))
    for part in ("FelixConfiguration", "default", f"spec.{field}", repr(value), allowed):
        assert part in str(refused.value)
    variable = PARAMETERS[field].variable
    with pytest.raises(ValueError, match=re.escape(allowed)) as wrong:
        from_variables({variable: text})
    for part in (variable, field, repr(text)):
        assert part in str(wrong.value)


def test_none_unsets_what_is_unset_by_default() -> None:
    assert from_variables({"FELIX_NATPORTRANGE": "none", "FELIX_VXLANENABLED": "None"}) == (
        {"natPortRange": None, "vxlanEnabled": None},
        [],
    )


def test_what_is_no_parameter_is_named_and_what_is_calicos_is_not() -> None:
    found, unknown = from_variables(
        {"FELIX_VXLANPROT": "1", "FELIX_TYPHAK8SSERVICENAME": "calico-typha", "FELIX_BPFENABLED": "whatever"}
    )
    assert (found, unknown) == ({}, ["FELIX_VXLANPROT"])
    with pytest.raises(Refused, match=r"spec\.vxlanProt"):
        accept(KIND, configuration(vxlanProt=1))


OTHER_VARIABLES = {
    "ipipEnabled": "FELIX_IPINIPENABLED",
    "ipipMTU": "FELIX_IPINIPMTU",
    "externalNodesList": "FELIX_EXTERNALNODESCIDRLIST",
    "wireguardKeepAlive": "FELIX_WIREGUARDPERSISTENTKEEPALIVE",
    "vxlanVNI": "FELIX_VXLANVNI",
}


@pytest.mark.parametrize("field", OTHER_VARIABLES)
def test_variables_are_named_as_in_calico(field: str) -> None:
    assert PARAMETERS[field].variable == OTHER_VARIABLES[field]


NAMES = {
    "for the cluster": (configuration("default"), ""),
    "for a node": (configuration("node.n1"), ""),
    "for some nodes": (configuration("rack-1", nodeSelector="rack == '1'"), ""),
    "for nobody": (configuration("rack-1"), "no node reads it"),
    "default with a selector": (configuration("default", nodeSelector="all()"), "chooses its nodes by its name"),
    "a selector that is none": (configuration("rack-1", nodeSelector="rack = 1"), "spec.nodeSelector"),
}


@pytest.mark.parametrize("name", NAMES)
def test_whom_an_object_is_for(name: str) -> None:
    value, complaint = NAMES[name]
    if not complaint:
        accept(KIND, value)
        return
    with pytest.raises(Refused, match=re.escape(complaint)):
        accept(KIND, value)


def test_what_is_said_to_have_an_effect_is_read_and_the_other_way_round() -> None:
    effective = {name for name, parameter in PARAMETERS.items() if parameter.effect}
    assert effective == {*ATTRIBUTES, *OTHERS}
    sources = "".join(
        path.read_text()
        for folder in ("felix", "agent", "node")
        for path in (Path(__file__).parents[3] / "calipy" / folder).rglob("*.py")
        if path.name not in ("settings.py", "configuration.py")
    )
    unread = [name for name in FelixSettings.__struct_fields__ if f".{name}" not in sources]
    assert unread == [], "settings that nothing reads"


def test_defaults_of_the_table_are_those_in_force() -> None:
    settings = FelixSettings()
    for name, attribute in ATTRIBUTES.items():
        assert getattr(settings, attribute) in (PARAMETERS[name].default, {}), name
