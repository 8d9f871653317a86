"""FelixConfiguration (projectcalico.org/v3): the one table of its parameters, and the kind.

An object is `default` (the cluster), `node.<name>` (one node), or any other name with a nodeSelector. Each parameter
has a name for objects and one for file and environment (`FELIX_` and that name in capitals).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from msgspec import Struct

from calipy.resources.durations import parse_seconds
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.selectors import SelectorError, parse

Value = bool | int | float | str | tuple[int, int] | tuple[str, ...] | None
"""A parameter's value: seconds as float, port ranges as pairs, lists as tuples, None where unset."""


class Parameter(Struct, frozen=True, gc=False, kw_only=True):
    """One parameter: its names, how its text is read, what is allowed, what it is when nobody says."""

    name: str
    """FelixConfiguration's field."""
    variable: str
    """Environment variable."""
    read: Callable[[str], Value]
    """From text; raises ValueError."""
    allowed: str
    default: Value
    duration: bool = False
    """Text of objects is a Go duration; of file and environment, seconds."""
    effect: bool = True
    """False: known, so that objects and environments made for Calico are taken as they are, but nothing reads it."""


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "1", "yes", "y", "t", "enabled"):
        return True
    if lowered in ("false", "0", "no", "n", "f", "disabled"):
        return False
    raise ValueError


def _number(low: int, high: int) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        number = int(text, 0)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


def _seconds(text: str) -> Value:
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise ValueError
    return seconds


def _one_of(*values: str) -> Callable[[str], Value]:
    spelled = {value.lower(): value for value in values}

    def read(text: str) -> Value:
        if text.lower() not in spelled:
            raise ValueError
        return spelled[text.lower()]

    return read


def _text(text: str) -> Value:
    return text


def _pattern(text: str) -> Value:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError from error
    return text


def _address(family: int) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        address = ipaddress.ip_address(text)
        if address.version != family:
            raise ValueError
        return str(address)

    return read


def _networks(text: str) -> Value:
    return tuple(str(ipaddress.ip_network(part.strip(), strict=False)) for part in text.split(",") if part.strip())


def _ports(text: str) -> Value:
    low, _, high = text.partition(":")
    first, last = int(low), int(high or low)
    if not 0 < first <= last <= 65535:
        raise ValueError
    return (first, last)


def _prefixes(text: str) -> Value:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,15}", part) for part in parts):
        raise ValueError
    return ",".join(parts)


def _features(text: str) -> Value:
    """Which of the features that make a difference here are said to be there."""
    found = []
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name and _flag(value) and name in _FEATURES:
            found.append(name)
    return tuple(found)


def _interface(text: str) -> Value:
    """An interface's name; `+` at its end stands for anything, as iptables spells it."""
    if not re.fullmatch(r"[a-zA-Z0-9:._-]{1,15}|[a-zA-Z0-9:._-]{1,14}\+", text):
        raise ValueError
    return text


_FEATURES = ("ChecksumOffloadBroken",)
_FLAG = (_flag, "true or false")
_PORT = (_number(1, 65535), "a port, 1 to 65535")
_MTU = (_number(0, 65535), "bytes, 0 (detect) to 65535")
_METRIC = (_number(1, 2147483646), "1 to 2147483646")
_SWITCH = (_one_of("Enabled", "Disabled"), "Enabled or Disabled")
_LEVEL = (
    _one_of("Debug", "Info", "Warning", "Error", "Fatal", "Trace", "None"),
    "Trace, Debug, Info, Warning, Error, Fatal or None",
)
_DENY = (_one_of("DROP", "REJECT"), "DROP or REJECT")
_ROUTES = (
    _one_of("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"),
    "Enabled, Disabled, EnabledIPIPOnly or EnabledNoEncapOnly",
)
_ANY = (_text, "any text")
_TIME = (_seconds, "seconds, 0 or more")

_Row = tuple[str, tuple[Callable[[str], Value], str], Value]

_IN_EFFECT: tuple[_Row, ...] = (
    ("interfacePrefix", (_prefixes, "names of 1 to 15 letters, digits, - and _, comma separated"), "cali"),
    ("ipv6Support", _FLAG, True),
    ("ipForwarding", _SWITCH, "Enabled"),
    ("defaultEndpointToHostAction", (_one_of("DROP", "ACCEPT", "RETURN"), "Drop, Accept or Return"), "DROP"),
    ("disableConntrackInvalidCheck", _FLAG, False),
    ("natOutgoingAddress", (_address(4), "an IPv4 address"), None),
    ("natOutgoingExclusions", (_one_of("IPPoolsOnly", "IPPoolsAndHostIPs"), "IPPoolsOnly or IPPoolsAndHostIPs"),
     "IPPoolsOnly"),
    ("natPortRange", (_ports, "a port or first:last"), None),
    ("iptablesNATOutgoingInterfaceFilter", (_interface, "an interface's name, perhaps with + at its end"), None),
    ("nftablesFilterDenyAction", _DENY, "DROP"),
    ("mtuIfacePattern", (_pattern, "a regular expression"),
     r"^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)"),
    ("deviceRouteProtocol", (_number(0, 255), "0 to 255"), 80),
    ("deviceRouteSourceAddress", (_address(4), "an IPv4 address"), None),
    ("deviceRouteSourceAddressIPv6", (_address(6), "an IPv6 address"), None),
    ("removeExternalRoutes", _FLAG, True),
    ("ipv4NormalRoutePriority", _METRIC, 1024),
    ("ipv6NormalRoutePriority", _METRIC, 1024),
    ("programClusterRoutes", _ROUTES, "EnabledIPIPOnly"),
    ("externalNodesList", (_networks, "addresses or CIDRs, comma separated"), ()),
    ("vxlanEnabled", _FLAG, None),
    ("vxlanMTU", _MTU, 0),
    ("vxlanMTUV6", _MTU, 0),
    ("vxlanPort", _PORT, 4789),
    ("vxlanVNI", (_number(1, 16777215), "1 to 16777215"), 4096),
    ("allowVXLANPacketsFromWorkloads", _FLAG, False),
    ("allowIPIPPacketsFromWorkloads", _FLAG, False),
    ("featureDetectOverride", (_features, "Name=true or Name=false, comma separated"), ()),
    ("logSeverityScreen", _LEVEL, "Info"),
    ("healthEnabled", _FLAG, False),
    ("healthHost", _ANY, "localhost"),
    ("healthPort", _PORT, 9099),
    ("prometheusMetricsEnabled", _FLAG, False),
    ("prometheusMetricsHost", _ANY, ""),
    ("prometheusMetricsPort", _PORT, 9091),
)  # fmt: skip
_IN_EFFECT_TIMES: tuple[tuple[str, float], ...] = (("routeRefreshInterval", 90.0), ("nftablesRefreshInterval", 180.0))
_KNOWN: tuple[str, ...] = tuple(
    [
        "interfaceExclude",
        "failsafeInboundHostPorts",
        "failsafeOutboundHostPorts",
        "iptablesFilterAllowAction",
        "iptablesFilterDenyAction",
        "iptablesMangleAllowAction",
        "iptablesMarkMask",
        "iptablesBackend",
        "iptablesRefreshInterval",
        "iptablesPostWriteCheckInterval",
        "iptablesLockProbeInterval",
        "ipsetsRefreshInterval",
        "maxIpsetSize",
        "chainInsertMode",
        "kubeNodePortRanges",
        "serviceLoopPrevention",
        "requireMTUFile",
        "routeSource",
        "routeSyncDisabled",
        "routeTableRanges",
        "routeTableRange",
        "interfaceRefreshInterval",
        "netlinkTimeout",
        "ipipEnabled",
        "ipipMTU",
        "logSeverityFile",
        "logSeveritySys",
        "logFilePath",
        "logPrefix",
        "healthTimeoutOverrides",
        "nftablesMode",
        "nftablesFilterAllowAction",
        "nftablesMarkMask",
        "nftablesMangleAllowAction",
        "nftablesFlowTableOffload",
        "nftablesFlowTableDataIfacePattern",
        "workloadSourceSpoofing",
        "floatingIPs",
        "endpointStatusPathPrefix",
        "policySyncPathPrefix",
        "ipv4ElevatedRoutePriority",
        "ipv6ElevatedRoutePriority",
        "liveMigrationRouteConvergenceTime",
        "localSubnetL2Reachability",
        "localSubnetL2ReachabilityRefreshInterval",
        "featureGates",
        "logActionRateLimit",
        "logActionRateLimitBurst",
        "logDebugFilenameRegex",
        "dataplaneWatchdogTimeout",
        "wireguardEnabled",
        "wireguardEnabledV6",
        "wireguardHostEncryptionEnabled",
        "wireguardInterfaceName",
        "wireguardInterfaceNameV6",
        "wireguardListeningPort",
        "wireguardListeningPortV6",
        "wireguardMTU",
        "wireguardMTUV6",
        "wireguardKeepAlive",
        "wireguardRoutingRulePriority",
        "wireguardThreadingEnabled",
        "flowLogsFlushInterval",
        "flowLogsGoldmaneServer",
        "flowLogsLocalReporter",
        "flowLogsPolicyEvaluationMode",
        "flowLogsCollectorDebugTrace",
        "prometheusGoMetricsEnabled",
        "prometheusProcessMetricsEnabled",
        "prometheusWireGuardMetricsEnabled",
        "prometheusMetricsCAFile",
        "prometheusMetricsCertFile",
        "prometheusMetricsKeyFile",
        "prometheusMetricsClientAuth",
        "usageReportingEnabled",
        "usageReportingInitialDelay",
        "usageReportingInterval",
        "reportingInterval",
        "reportingTTL",
        "endpointReportingEnabled",
        "endpointReportingDelay",
        "cgroupV2Path",
        "useInternalDataplaneDriver",
        "dataplaneDriver",
        "goGCThreshold",
        "goMaxProcs",
        "goMemoryLimitMB",
        "istioAmbientMode",
        "istioDSCPMark",
        "xdpEnabled",
        "xdpRefreshInterval",
        "genericXDPEnabled",
        "sidecarAccelerationEnabled",
        "awsSrcDstCheck",
        "bpfAttachType",
        "bpfCTLBLogFilter",
        "bpfConnectTimeLoadBalancing",
        "bpfConnectTimeLoadBalancingEnabled",
        "bpfConntrackMode",
        "bpfConntrackLogLevel",
        "bpfConntrackTimeouts",
        "bpfDSROptoutCIDRs",
        "bpfDataIfacePattern",
        "bpfDisableGROForIfaces",
        "bpfDisableUnprivileged",
        "bpfEnabled",
        "bpfEnforceRPF",
        "bpfExcludeCIDRsFromNAT",
        "bpfExportBufferSizeMB",
        "bpfExtToServiceConnmark",
        "bpfExternalServiceMode",
        "bpfForceTrackPacketsFromIfaces",
        "bpfHostConntrackBypass",
        "bpfHostNetworkedNATWithoutCTLB",
        "bpfIPFragTimeout",
        "bpfIPFragmentReassemblyEnabled",
        "bpfJITHardening",
        "bpfKubeProxyHealthzPort",
        "bpfKubeProxyIptablesCleanupEnabled",
        "bpfKubeProxyMinSyncPeriod",
        "bpfL3IfacePattern",
        "bpfLogFilters",
        "bpfLogLevel",
        "bpfMaglevMaxEndpointsPerService",
        "bpfMaglevMaxServices",
        "bpfMapSizeConntrack",
        "bpfMapSizeConntrackCleanupQueue",
        "bpfMapSizeConntrackScaling",
        "bpfMapSizeIPSets",
        "bpfMapSizeIfState",
        "bpfMapSizeNATAffinity",
        "bpfMapSizeNATBackend",
        "bpfMapSizeNATFrontend",
        "bpfMapSizePerCpuConntrack",
        "bpfMapSizeRoute",
        "bpfOverlayHostSourceIP",
        "bpfPSNATPorts",
        "bpfPolicyDebugEnabled",
        "bpfProfiling",
        "bpfRedirectToPeer",
        "windowsManageFirewallRules",
        "metadataAddr",
        "metadataPort",
        "openstackRegion",
        "debugDisableLogDropping",
        "debugHost",
        "debugMemoryProfilePath",
        "debugPort",
        "debugSimulateCalcGraphHangAfter",
        "debugSimulateDataplaneApplyDelay",
        "debugSimulateDataplaneHangAfter",
    ]
)
_PROCESS_ONLY = frozenset(
    {
        "FELIX_DATASTORETYPE",
        "FELIX_FELIXHOSTNAME",
        "FELIX_TYPHAADDR",
        "FELIX_TYPHAK8SSERVICENAME",
        "FELIX_TYPHAK8SNAMESPACE",
        "FELIX_TYPHAREADTIMEOUT",
        "FELIX_TYPHAWRITETIMEOUT",
        "FELIX_TYPHACAFILE",
        "FELIX_TYPHACERTFILE",
        "FELIX_TYPHAKEYFILE",
        "FELIX_TYPHACN",
        "FELIX_TYPHAURISAN",
        "FELIX_ETCDADDR",
        "FELIX_ETCDCAFILE",
        "FELIX_ETCDCERTFILE",
        "FELIX_ETCDENDPOINTS",
        "FELIX_ETCDKEYFILE",
        "FELIX_ETCDSCHEME",
        "FELIX_DEBUGBPFCGROUPV2",
        "FELIX_DEBUGCPUPROFILEPATH",
        "FELIX_DEBUGPANICAFTER",
        "FELIX_DEBUGSIMULATEDATARACE",
    }
)
"""Calico's parameters for file and environment alone; known, without effect."""
_OTHER_VARIABLES = {
    "ipipEnabled": "FELIX_IPINIPENABLED",
    "ipipMTU": "FELIX_IPINIPMTU",
    "externalNodesList": "FELIX_EXTERNALNODESCIDRLIST",
    "bpfConntrackMode": "FELIX_BPFCONNTRACKCLEANUPMODE",
    "wireguardKeepAlive": "FELIX_WIREGUARDPERSISTENTKEEPALIVE",
}


def _parameters() -> Iterator[Parameter]:
    def variable(name: str) -> str:
        return _OTHER_VARIABLES.get(name, f"FELIX_{name.upper()}")

    for name, (read, allowed), default in _IN_EFFECT:
        yield Parameter(name=name, variable=variable(name), read=read, allowed=allowed, default=default)
    for name, seconds in _IN_EFFECT_TIMES:
        yield Parameter(
            name=name, variable=variable(name), read=_seconds, allowed=_TIME[1], default=seconds, duration=True
        )
    for name in _KNOWN:
        yield Parameter(name=name, variable=variable(name), read=_text, allowed="", default=None, effect=False)


PARAMETERS: Mapping[str, Parameter] = {parameter.name: parameter for parameter in _parameters()}
"""By FelixConfiguration's field."""
_BY_VARIABLE = {parameter.variable: parameter for parameter in PARAMETERS.values()}


def defaults() -> dict[str, Value]:
    """Every parameter that has an effect, as it is when nobody says."""
    return {name: parameter.default for name, parameter in PARAMETERS.items() if parameter.effect}


def parse_text(parameter: Parameter, text: str) -> Value:
    """A value from file or environment; `none` unsets. Raises ValueError: parameter, value and what is allowed."""
    if text.strip().lower() == "none" and parameter.default is None:
        return None
    try:
        return parameter.read(text.strip())
    except ValueError as error:
        raise ValueError(f"{parameter.name} is {text!r}: it must be {parameter.allowed}") from error


def from_variables(texts: Mapping[str, str]) -> tuple[dict[str, Value], list[str]]:
    """Values from FELIX_* variables, and the names that no parameter has. Raises ValueError at a wrong value."""
    found: dict[str, Value] = {}
    unknown: list[str] = []
    for name, text in texts.items():
        parameter = _BY_VARIABLE.get(name.upper())
        if parameter is None:
            if name.upper() not in _PROCESS_ONLY:
                unknown.append(name)
        elif parameter.effect:
            try:
                found[parameter.name] = parse_text(parameter, text)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return found, unknown


def from_file(text: str) -> tuple[dict[str, Value], list[str]]:
    """Values from Felix's configuration file: `Name = value` lines, sections and # comments ignored."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] not in "#;[")
    return from_variables({f"FELIX_{name.strip().upper()}": value.strip() for name, _, value in pairs})


class FelixConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="FelixConfiguration"
):
    """Felix's settings for the cluster, some nodes, or one. `spec` holds the fields as they stand in the object."""

    spec: dict[str, object] = {}
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"

    @property
    def node_selector(self) -> str:
        """Which nodes an object of another name is for."""
        selector = self.spec.get("nodeSelector", "")
        return selector if isinstance(selector, str) else ""


def values(configuration: FelixConfiguration) -> dict[str, Value]:
    """The parameters with an effect that an accepted object sets."""
    return {
        name: parse_field(PARAMETERS[name], value)
        for name, value in configuration.spec.items()
        if name in PARAMETERS and PARAMETERS[name].effect and value is not None
    }


def parse_field(parameter: Parameter, value: object) -> Value:
    """A value from an object: booleans and numbers as they are, durations in Go's spelling. Raises ValueError."""
    try:
        if parameter.duration:
            return parameter.read(str(parse_seconds(value)) if isinstance(value, str) else _refuse(value))
        if isinstance(value, list):
            return parameter.read(",".join(map(str, value)))
        if isinstance(value, bool) != (parameter.read is _flag):
            raise ValueError
        return parameter.read(str(value))
    except ValueError as error:
        raise ValueError(parameter.allowed) from error


def _refuse(value: object) -> str:
    raise ValueError(f"{value!r} is not a duration")


def problems(configuration: FelixConfiguration) -> Iterator[Problem]:
    """Wrong values, unknown fields, and a nodeSelector where none belongs."""
    name = configuration.metadata.name
    named = name == "default" or name.startswith("node.")
    for field, value in configuration.spec.items():
        if field == "nodeSelector":
            continue
        parameter = PARAMETERS.get(field)
        if parameter is None:
            yield Problem(f"spec.{field}", value, "is not a parameter", "see the list of FelixConfiguration's fields")
        elif parameter.effect and value is not None:
            try:
                parse_field(parameter, value)
            except ValueError as error:
                yield Problem(f"spec.{field}", value, "is not allowed", f"write {error}")
    yield from _selector_problems(configuration, named)


def _selector_problems(configuration: FelixConfiguration, named: bool) -> Iterator[Problem]:
    name, selector = configuration.metadata.name, configuration.node_selector
    if named and selector:
        yield Problem(
            "spec.nodeSelector", selector, f"an object called {name} chooses its nodes by its name", "leave it out"
        )
    if not named and not selector:
        yield Problem(
            "metadata.name", name, "no node reads it", "name it default or node.<node>, or set spec.nodeSelector"
        )
    try:
        parse(selector)
    except SelectorError as error:
        yield Problem("spec.nodeSelector", selector, str(error), "see Calico's selector syntax")


KIND = Kind(
    name="FelixConfiguration", group="projectcalico.org", version="v3", plural="felixconfigurations",
    type=FelixConfiguration, problems=problems, short_names=("felixconfig", "felixconfigs"),
)  # fmt: skip
