"""FelixConfiguration: one parameter from environment, file and object; what each may be, how a wrong one is told."""

from __future__ import annotations

import re
from typing import Any

import pytest

from calipy.resources.felix_configurations import (
    KIND,
    PARAMETERS,
    Value,
    defaults,
    from_file,
    from_variables,
    values,
    without_effect,
)
from tests.unit.resources.objects import made, said

# environment variable | text | parameter | value
VARIABLES: list[tuple[str, str, str, Value]] = [
    ("FELIX_INTERFACEPREFIX", "cali,eni", "interfacePrefix", "cali,eni"),
    ("FELIX_IPV6SUPPORT", "f", "ipv6Support", False),
    ("FELIX_IPV6SUPPORT", "Yes", "ipv6Support", True),
    ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "accept", "defaultEndpointToHostAction", "ACCEPT"),
    ("FELIX_DISABLECONNTRACKINVALIDCHECK", "1", "disableConntrackInvalidCheck", True),
    ("FELIX_NATOUTGOINGADDRESS", "192.0.2.1", "natOutgoingAddress", "192.0.2.1"),
    ("FELIX_NATOUTGOINGADDRESS", "none", "natOutgoingAddress", None),
    ("FELIX_NATPORTRANGE", "1024:2047", "natPortRange", (1024, 2047)),
    ("FELIX_NATPORTRANGE", "1024", "natPortRange", (1024, 1024)),
    ("FELIX_IPTABLESNATOUTGOINGINTERFACEFILTER", "eth0.100", "iptablesNATOutgoingInterfaceFilter", "eth0.100"),
    ("FELIX_EXTERNALNODESCIDRLIST", "192.0.2.1, 10.0.0.0/8", "externalNodesList", ("192.0.2.1/32", "10.0.0.0/8")),
    ("FELIX_ROUTEREFRESHINTERVAL", "12.5", "routeRefreshInterval", 12.5),
    ("FELIX_VXLANENABLED", "true", "vxlanEnabled", True),
    ("FELIX_VXLANENABLED", "none", "vxlanEnabled", None),
    ("FELIX_VXLANMTU", "1450", "vxlanMTU", 1450),
    ("FELIX_LOGSEVERITYSCREEN", "WARNING", "logSeverityScreen", "Warning"),
    ("FELIX_LOGSEVERITYSCREEN", "none", "logSeverityScreen", "None"),
    ("FELIX_HEALTHENABLED", "t", "healthEnabled", True),
    ("FELIX_HEALTHHOST", "::1", "healthHost", "::1"),
    (
        "FELIX_HEALTHTIMEOUTOVERRIDES",
        "CalculationGraph=1m30s, EventLoop = 5s",
        "healthTimeoutOverrides",
        {"CalculationGraph": 90, "EventLoop": 5},
    ),
    ("FELIX_PROMETHEUSMETRICSPORT", "0", "prometheusMetricsPort", 0),
    ("felix_vxlanvni", "0x10", "vxlanVNI", 16),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), VARIABLES, ids=[f"{r[0]}={r[1]}" for r in VARIABLES])
def test_a_variable(variable: str, text: str, name: str, value: Value) -> None:
    assert from_variables({variable: text}) == ({name: value}, [])


# environment variable | text | what it must be
WRONG_VARIABLES = [
    ("FELIX_IPV6SUPPORT", "enabled", "true or false"),
    ("FELIX_HEALTHPORT", "65536", "a port, 0 to 65535"),
    ("FELIX_HEALTHPORT", "http", "a port, 0 to 65535"),
    ("FELIX_HEALTHHOST", "node1", "an address or localhost"),
    ("FELIX_LOGSEVERITYSCREEN", "loud", "Trace, Debug, Info, Warning, Error, Fatal or None"),
    ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "none", "DROP, ACCEPT or RETURN"),
    ("FELIX_NATPORTRANGE", "9:8", "a port or first:last"),
    ("FELIX_NATOUTGOINGADDRESS", "fd00::1", "an IPv4 address"),
    ("FELIX_MTUIFACEPATTERN", "eth(", "a regular expression"),
    ("FELIX_ROUTEREFRESHINTERVAL", "90s", "seconds, 0 or more"),
    ("FELIX_ROUTEREFRESHINTERVAL", "inf", "seconds, 0 or more"),
    ("FELIX_NFTABLESREFRESHINTERVAL", "-1", "seconds, 0 or more"),
    ("FELIX_VXLANVNI", "16777216", "1 to 16777215"),
    ("FELIX_VXLANPORT", "0", "a port, 1 to 65535"),
    ("FELIX_IPV4NORMALROUTEPRIORITY", "0", "1 to 2147483646"),
    ("FELIX_INTERFACEPREFIX", "cali,", "names of 1 to 15 letters, digits, - and _, comma separated"),
    ("FELIX_HEALTHTIMEOUTOVERRIDES", "EventLoop", "name=duration pairs, comma separated"),
    ("FELIX_HEALTHTIMEOUTOVERRIDES", "EventLoop=-1s", "name=duration pairs, comma separated"),
]


@pytest.mark.parametrize(("variable", "text", "allowed"), WRONG_VARIABLES)
def test_a_wrong_variable_is_told_with_name_value_and_what_is_allowed(variable: str, text: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"is {text!r}: it must be {allowed}")) as raised:
        from_variables({variable: text})
    assert str(raised.value).startswith(f"{variable}: ")


# parameter | its environment variable where that isn't FELIX_ and the name in capitals (Felix's Go names)
NAMES = {
    "ipipEnabled": "FELIX_IPINIPENABLED",
    "ipipMTU": "FELIX_IPINIPMTU",
    "externalNodesList": "FELIX_EXTERNALNODESCIDRLIST",
    "bpfConntrackMode": "FELIX_BPFCONNTRACKCLEANUPMODE",
    "wireguardKeepAlive": "FELIX_WIREGUARDPERSISTENTKEEPALIVE",
    "iptablesPostWriteCheckInterval": "FELIX_IPTABLESPOSTWRITECHECKINTERVALSECS",
    "iptablesLockProbeInterval": "FELIX_IPTABLESLOCKPROBEINTERVALMILLIS",
    "netlinkTimeout": "FELIX_NETLINKTIMEOUTSECS",
    "reportingInterval": "FELIX_REPORTINGINTERVALSECS",
    "reportingTTL": "FELIX_REPORTINGTTLSECS",
    "endpointReportingDelay": "FELIX_ENDPOINTREPORTINGDELAYSECS",
    "usageReportingInitialDelay": "FELIX_USAGEREPORTINGINITIALDELAYSECS",
    "usageReportingInterval": "FELIX_USAGEREPORTINGINTERVALSECS",
}


def test_names_of_variables_are_felixs() -> None:
    assert {p.name: p.variable for p in PARAMETERS.values() if p.variable != f"FELIX_{p.name.upper()}"} == NAMES
    assert len({p.variable for p in PARAMETERS.values()}) == len(PARAMETERS)


def test_an_empty_variable_says_nothing_and_an_unknown_one_is_told() -> None:
    texts = {
        "FELIX_HEALTHPORT": "",
        "FELIX_HELTHPORT": "1",
        "FELIX_DATASTORETYPE": "kubernetes",
        "FELIX_BPFENABLED": "false",
        "FELIX_TYPHAADDR": "",
    }
    assert from_variables(texts) == ({}, ["FELIX_HELTHPORT"])


def test_a_file() -> None:
    text = """
        # comment
        [global]
        HealthEnabled = true
        MTUIfacePattern=^eth\\d
        NoSuchThing = 1
        ; another
        LogSeverityScreen =
    """
    assert from_file(text) == ({"healthEnabled": True, "mtuIfacePattern": "^eth\\d"}, ["NoSuchThing"])
    with pytest.raises(ValueError, match="FELIX_HEALTHPORT: healthPort is '99999': it must be a port, 0 to 65535"):
        from_file("HealthPort = 99999\n")


def test_the_table_of_defaults_is_calicos_but_for_the_route_protocol() -> None:
    found = defaults()
    assert found["deviceRouteProtocol"] == 80
    for name, value in {
        "interfacePrefix": "cali", "ipv6Support": True, "defaultEndpointToHostAction": "DROP",
        "routeRefreshInterval": 90.0, "nftablesRefreshInterval": 180.0,
        "vxlanPort": 4789, "vxlanVNI": 4096, "logSeverityScreen": "Info", "healthEnabled": False,
        "healthHost": "localhost", "healthPort": 9099, "prometheusMetricsEnabled": False, "prometheusMetricsHost": "",
        "prometheusMetricsPort": 9091, "programClusterRoutes": "EnabledIPIPOnly", "healthTimeoutOverrides": None,
    }.items():  # fmt: skip
        assert found[name] == value, name


# spec of an object | the values that it sets
OBJECTS: list[tuple[dict[str, Any], dict[str, Value]]] = [
    ({}, {}),
    ({"vxlanMTU": 1450, "vxlanEnabled": None, "prometheusMetricsHost": ""}, {"vxlanMTU": 1450}),
    ({"routeRefreshInterval": "1m30s"}, {"routeRefreshInterval": 90.0}),
    ({"externalNodesList": ["10.0.0.0/8", "fd00::1"]}, {"externalNodesList": ("10.0.0.0/8", "fd00::1/128")}),
    ({"natPortRange": "1:9", "defaultEndpointToHostAction": "Return"},
     {"natPortRange": (1, 9), "defaultEndpointToHostAction": "RETURN"}),
    ({"healthTimeoutOverrides": [{"name": "EventLoop", "timeout": "1m"}]},
     {"healthTimeoutOverrides": {"EventLoop": 60}}),
    ({"bpfEnabled": True, "wireguardEnabled": False}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "found"), OBJECTS, ids=[str(row[0]) for row in OBJECTS])
def test_an_object(spec: dict[str, Any], found: dict[str, Value]) -> None:
    configuration = made(KIND, spec, "default")
    assert said(KIND, configuration) == []
    assert values(configuration) == found


def test_fields_that_nothing_reads_can_be_told() -> None:
    configuration = made(KIND, {"bpfEnabled": True, "vxlanMTU": 1450, "wireguardEnabled": None}, "default")
    assert without_effect(configuration) == ("bpfEnabled",)


# name | spec | each problem: field, value, reason, remedy
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "default",
        {"healthPrt": 1},
        ["spec.healthPrt: 1: is not a parameter; did you mean healthPort?"],
    ),
    ("default", {"healthEnabled": "true"}, ["spec.healthEnabled: 'true': is not allowed; write true or false"]),
    ("default", {"healthEnabled": 1}, ["spec.healthEnabled: 1: is not allowed; write true or false"]),
    ("default", {"healthPort": True}, ["spec.healthPort: True: is not allowed; write a port, 0 to 65535"]),
    ("default", {"healthPort": "9099"}, ["spec.healthPort: '9099': is not allowed; write a port, 0 to 65535"]),
    ("default", {"vxlanVNI": 0}, ["spec.vxlanVNI: 0: is not allowed; write 1 to 16777215"]),
    (
        "default",
        {"routeRefreshInterval": 90},
        ["spec.routeRefreshInterval: 90: is not allowed; write a duration, 0 or more: 90s, 1m30s, 1.5h or 300ms"],
    ),
    (
        "default",
        {"routeRefreshInterval": "90"},
        ["spec.routeRefreshInterval: '90': is not allowed; write a duration, 0 or more: 90s, 1m30s, 1.5h or 300ms"],
    ),
    (
        "default",
        {"externalNodesList": "10.0.0.0/8"},
        ["spec.externalNodesList: '10.0.0.0/8': is not allowed; write addresses or CIDRs, comma separated"],
    ),
    (
        "default",
        {"externalNodesList": [10]},
        ["spec.externalNodesList: [10]: is not allowed; write addresses or CIDRs, comma separated"],
    ),
    (
        "default",
        {"healthTimeoutOverrides": [{"name": "EventLoop"}]},
        ["spec.healthTimeoutOverrides: [{'name': 'EventLoop'}]: is not allowed; "
         "write name=duration pairs, comma separated"],
    ),
    (
        "default",
        {"nodeSelector": "all()"},
        ["spec.nodeSelector: 'all()': an object called default chooses its nodes by its name; leave it out"],
    ),
    (
        "node.n1",
        {"nodeSelector": "all()"},
        ["spec.nodeSelector: 'all()': an object called node.n1 chooses its nodes by its name; leave it out"],
    ),
    ("rack", {}, ["metadata.name: 'rack': no node reads it; name it default or node.<node>, or set spec.nodeSelector"]),
    (
        "rack",
        {"nodeSelector": "rack"},
        ["spec.nodeSelector: 'rack': column 5: 'the end' where ==, !=, in, not in, contains, starts with or ends with "
         "was expected; see Calico's selector syntax"],
    ),
    (
        "default",
        {"nodeSelector": 7},
        ["spec.nodeSelector: 7: is not a selector; write it as text"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "problems"), WRONG, ids=[f"{row[0]}-{row[1]}" for row in WRONG])
def test_wrong(name: str, spec: dict[str, Any], problems: list[str]) -> None:
    assert said(KIND, made(KIND, spec, name)) == problems
