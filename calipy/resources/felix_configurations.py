"""FelixConfiguration (projectcalico.org/v3): the one table of its parameters, and the kind.

An object is `default` (the cluster), `node.<name>` (one node), or any other name with a nodeSelector. Each parameter
has a name for objects and one for file and environment (`FELIX_` and that name in capitals).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from calipy.resources import felix_field_types as types
from calipy.resources.definitions import SELECTOR, Definition, Validation, unset
from calipy.resources.durations import parse_seconds
from calipy.resources.felix_field_types import FieldType
from calipy.resources.felix_known_parameters import KNOWN
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.selectors import selector_problems

Value = bool | int | float | str | tuple[int, int] | tuple[str, ...] | Mapping[str, float] | None
"""A parameter's value: seconds as float, port ranges as pairs, lists as tuples, None where unset."""


class Values(Struct, frozen=True, gc=False):
    """What a parameter may be."""

    read: Callable[[str], Value]
    """From text; raises ValueError."""
    allowed: str
    """The same for people."""
    schema: FieldType
    """What an API server is told of it."""
    json: tuple[type, ...] = (str,)
    """What an object may hold."""


class Parameter(Struct, frozen=True, gc=False, kw_only=True):
    """One parameter: its names, how its text is read, what is allowed, what it is when nobody says."""

    name: str
    """FelixConfiguration's field."""
    variable: str
    """Environment variable."""
    values: Values
    default: Value
    description: str
    """For people: what it does, its unit, its default."""
    duration: bool = False
    """Text of objects is a Go duration; of file and environment, seconds."""
    effect: bool = True
    """False: known, so that objects and environments made for Calico are taken as they are, but nothing reads it."""


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "1", "yes", "y", "t"):
        return True
    if lowered in ("false", "0", "no", "n", "f"):
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


def _timeouts(text: str) -> Value:
    """`name=duration` pairs."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    found = {name.strip(): parse_seconds(duration.strip()) for name, _, duration in pairs}
    if "" in found or any(seconds < 0 for seconds in found.values()):
        raise ValueError
    return found


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


def _host(text: str) -> Value:
    return text if text == "localhost" else str(ipaddress.ip_address(text))


def _interface(text: str) -> Value:
    """An interface's name; `+` at its end stands for anything, as iptables spells it."""
    if not re.fullmatch(r"[a-zA-Z0-9:._-]{1,15}|[a-zA-Z0-9:._-]{1,14}\+", text):
        raise ValueError
    return text


def _networks(text: str) -> Value:
    return tuple(str(ipaddress.ip_network(part.strip(), strict=False)) for part in text.split(",") if part.strip())


def _ports(text: str) -> Value:
    low, _, high = text.partition(":")
    first, last = int(low), int(high or low)
    if not 0 < first <= last <= 65535:
        raise ValueError
    return (first, last)


def _mark_mask(text: str) -> Value:
    """Bits of the packet's mark that are Felix's; passing from tier to tier takes the second of them."""
    mask = int(text, 0)
    if not 0 < mask < 1 << 32 or mask.bit_count() < 2:
        raise ValueError
    return mask


_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


def _rate(text: str) -> Value:
    """Packets and the seconds in which so many may be logged."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})/(second|minute|hour|day)", text)
    if found is None:
        raise ValueError
    return int(found[1]), _PERIODS_S[found[2]]


def _log_prefix(text: str) -> Value:
    if not re.fullmatch(r"[ !#-~]*", text):
        raise ValueError
    return text


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


_FEATURES = ("ChecksumOffloadBroken",)


def _choice(*names: str, schema: FieldType = None) -> Values:
    allowed = f"{', '.join(names[:-1])} or {names[-1]}"
    return Values(_one_of(*names), allowed, types.either(*sorted(names)) if schema is None else schema)


def _range(low: int, high: int, meaning: str) -> Values:
    return Values(_number(low, high), meaning.format(low=low, high=high), types.within(low, high), (int,))


_FLAG = Values(_flag, "true or false", types.FLAG, (bool,))
_PORT = _range(0, 65535, "a port, {low} to {high}")
_MTU = _range(0, 65535, "bytes, {low} (detect) to {high}")
_METRIC = _range(1, 2147483646, "{low} to {high}")
_SWITCH = _choice("Enabled", "Disabled")
_LEVEL = _choice("Trace", "Debug", "Info", "Warning", "Error", "Fatal", "None", schema=types.LEVEL)
_DENY = _choice("DROP", "REJECT", schema=types.spelled("Drop", "Reject"))
_TO_HOST = _choice("DROP", "ACCEPT", "RETURN", schema=types.spelled("Drop", "Accept", "Return"))
_ROUTES = _choice("Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")
_HOST = Values(_host, "an address or localhost", types.TEXT)
_IPV4 = Values(_address(4), "an IPv4 address", types.ADDRESS)
_IPV6 = Values(_address(6), "an IPv6 address", types.ADDRESS)
_SECONDS, _DURATION = "seconds, 0 or more", "a duration, 0 or more: 90s, 1m30s, 1.5h or 300ms"
_TIME = Values(_seconds, _SECONDS, types.DURATION)
_PREFIXES = Values(_prefixes, "names of 1 to 15 letters, digits, - and _, comma separated", types.TEXT)
_PORT_RANGE = Values(_ports, "a port or first:last", types.PORTS, (int, str))
_INTERFACE = Values(_interface, "an interface's name, perhaps with + at its end", types.TEXT)
_MASK = Values(_mark_mask, "32 bits of which at least two are set", types.MASK, (int,))
_LOG_PREFIX = Values(
    _log_prefix,
    "letters, digits and signs of ASCII but no quotation marks; %t, %k, %n and %p stand for tier, kind, name, and "
    "namespace with name",
    types.LOG_PREFIX,
)
_RATE = Values(_rate, "a number of 1 to 9999 and /second, /minute, /hour or /day", types.RATE)
_PATTERN = Values(_pattern, "a regular expression", types.TEXT)
_NETWORKS = Values(_networks, "addresses or CIDRs, comma separated", types.TEXTS, (list,))
_FEATURE = Values(_features, "Name=true or Name=false, comma separated", types.PAIRS)
_TIMEOUTS = Values(_timeouts, "name=duration pairs, comma separated", tuple[types.HealthTimeoutOverride, ...], (list,))

_Row = tuple[str, Values, Value, str]

_IN_EFFECT: tuple[_Row, ...] = (
    ("interfacePrefix", _PREFIXES, "cali",
     "What the names of pods' interfaces on the node begin with; several, comma separated. Default: cali."),
    ("ipv6Support", _FLAG, True, "Whether IPv6 is programmed. Default: true."),
    ("ipForwarding", _SWITCH, "Enabled", "Whether the node is made to forward packets (sysctl). Default: Enabled."),
    ("defaultEndpointToHostAction", _TO_HOST, "DROP",
     "What becomes of packets from pods to their own node that the pod's egress policy allows: Drop, Accept, or"
     " Return, which leaves them to other rules of the node. Default: Drop."),
    ("disableConntrackInvalidCheck", _FLAG, False,
     "Whether packets that belong to no connection (conntrack's INVALID) are let through. Default: false."),
    ("natOutgoingAddress", _IPV4, None,
     "The address that connections of pools with natOutgoing leave with. Default: that of the interface that "
     "they leave by."),
    ("natOutgoingExclusions", _choice("IPPoolsOnly", "IPPoolsAndHostIPs"), "IPPoolsOnly",
     "Where connections of pools with natOutgoing keep their address: to pools, or to pools and nodes. Default:"
     " IPPoolsOnly."),
    ("natPortRange", _PORT_RANGE, None,
     "The source ports of connections of pools with natOutgoing: a port, or first:last. Default: the kernel "
     "chooses."),
    ("iptablesNATOutgoingInterfaceFilter", _INTERFACE, None,
     "The interface by which connections of pools with natOutgoing leave with another address; + at its end "
     "stands for anything. Default: any."),
    ("nftablesFilterDenyAction", _DENY, "DROP",
     "What becomes of packets that a policy denies: Drop, or Reject, which tells the sender. Default: Drop."),
    ("nftablesMarkMask", _MASK, 0xFFFF0000,
     "The bits of a packet's mark that the rules use; two at least. Default: 4294901760 (0xffff0000)."),
    ("logPrefix", _LOG_PREFIX, "calico-packet",
     "What lines of the action Log begin with; %t, %k, %n and %p stand for the policy's tier, kind, name, and "
     "namespace with name. Default: calico-packet."),
    ("logActionRateLimit", _RATE, None,
     "How many lines the action Log writes at most: 10/second, 100/hour. Default: no limit."),
    ("logActionRateLimitBurst", _range(1, 9999, "{low} to {high}"), 5,
     "How many lines may come at once under logActionRateLimit. Default: 5."),
    ("mtuIfacePattern", _PATTERN, r"^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)",
     "The interfaces whose smallest MTU is the network's, as a regular expression. Default: names of Ethernet, "
     "wireless and mobile devices."),
    ("deviceRouteProtocol", _range(0, 255, "{low} to {high}"), 80,
     "The protocol number by which the kernel's routes are known as ours. Default: 80."),
    ("deviceRouteSourceAddress", _IPV4, None,
     "The IPv4 address that the node itself uses towards pods. Default: the kernel chooses."),
    ("deviceRouteSourceAddressIPv6", _IPV6, None,
     "The IPv6 address that the node itself uses towards pods. Default: the kernel chooses."),
    ("removeExternalRoutes", _FLAG, True,
     "Whether routes to pods' interfaces that others made are removed. Default: true."),
    ("ipv4NormalRoutePriority", _METRIC, 1024, "The metric of IPv4 routes; lower wins. Default: 1024."),
    ("ipv6NormalRoutePriority", _METRIC, 1024, "The metric of IPv6 routes; lower wins. Default: 1024."),
    ("programClusterRoutes", _ROUTES, "EnabledIPIPOnly",
     "Which routes to other nodes' pods are made from IPAM instead of BGP: those of pools without encapsulation"
     " (EnabledNoEncapOnly), with IPIP (EnabledIPIPOnly), both (Enabled), or none (Disabled). Those of VXLAN "
     "always are. Default: EnabledIPIPOnly."),
    ("externalNodesList", _NETWORKS, (),
     "Addresses and CIDRs outside the cluster that tunnel packets are taken from. Default: none."),
    ("vxlanEnabled", _FLAG, None, "Whether there is a VXLAN device for IPv4. Default: where a pool needs it."),
    ("vxlanMTU", _MTU, 0, "The MTU of the VXLAN device for IPv4, in bytes; 0 detects it. Default: 0."),
    ("vxlanMTUV6", _MTU, 0, "The MTU of the VXLAN device for IPv6, in bytes; 0 detects it. Default: 0."),
    ("vxlanPort", _range(1, 65535, "a port, {low} to {high}"), 4789, "VXLAN's UDP port. Default: 4789."),
    ("vxlanVNI", _range(1, 16777215, "{low} to {high}"), 4096, "VXLAN's network number. Default: 4096."),
    ("allowVXLANPacketsFromWorkloads", _FLAG, False, "Whether pods may send VXLAN packets. Default: false."),
    ("allowIPIPPacketsFromWorkloads", _FLAG, False, "Whether pods may send IPIP packets. Default: false."),
    ("featureDetectOverride", _FEATURE, (),
     "What the kernel is said to be able to do, instead of finding out: Name=true or Name=false, comma "
     "separated. ChecksumOffloadBroken is read. Default: nothing."),
    ("logSeverityScreen", _LEVEL, "Info",
     "What the log tells of: Trace, Debug, Info, Warning, Error or Fatal, and what is worse. Default: Info."),
    ("healthEnabled", _FLAG, False, "Whether the node's health can be asked for by HTTP. Default: false."),
    ("healthHost", _HOST, "localhost", "The address at which it is asked for. Default: localhost."),
    ("healthPort", _PORT, 9099, "The TCP port at which it is asked for. Default: 9099."),
    ("healthTimeoutOverrides", _TIMEOUTS, None,
     "How long parts of the agent may be silent before they count as dead, by name. Default: each part's own."),
    ("prometheusMetricsEnabled", _FLAG, False, "Whether metrics can be read by HTTP. Default: false."),
    ("prometheusMetricsHost", _HOST, "", "The address at which they are read. Default: all of the node's."),
    ("prometheusMetricsPort", _PORT, 9091, "The TCP port at which they are read. Default: 9091."),
)  # fmt: skip
_IN_EFFECT_TIMES: tuple[tuple[str, float, str], ...] = (
    ("routeRefreshInterval", 90.0,
     "How often the kernel's routes are read back and repaired, as a duration; 0s for never. Default: 90s."),
    ("nftablesRefreshInterval", 180.0,
     "How often the kernel's rules and sets are read back and repaired, as a duration; 0s for never. Default: "
     "180s."),
)  # fmt: skip
_OTHER_VARIABLES = {
    "ipipEnabled": "FELIX_IPINIPENABLED",
    "ipipMTU": "FELIX_IPINIPMTU",
    "iptablesPostWriteCheckInterval": "FELIX_IPTABLESPOSTWRITECHECKINTERVALSECS",
    "iptablesLockProbeInterval": "FELIX_IPTABLESLOCKPROBEINTERVALMILLIS",
    "netlinkTimeout": "FELIX_NETLINKTIMEOUTSECS",
    "reportingInterval": "FELIX_REPORTINGINTERVALSECS",
    "reportingTTL": "FELIX_REPORTINGTTLSECS",
    "endpointReportingDelay": "FELIX_ENDPOINTREPORTINGDELAYSECS",
    "usageReportingInitialDelay": "FELIX_USAGEREPORTINGINITIALDELAYSECS",
    "usageReportingInterval": "FELIX_USAGEREPORTINGINTERVALSECS",
    "externalNodesList": "FELIX_EXTERNALNODESCIDRLIST",
    "bpfConntrackMode": "FELIX_BPFCONNTRACKCLEANUPMODE",
    "wireguardKeepAlive": "FELIX_WIREGUARDPERSISTENTKEEPALIVE",
}
_LOCAL = (
    "DatastoreType", "FelixHostname", "EtcdAddr", "EtcdCaFile", "EtcdCertFile", "EtcdEndpoints", "EtcdKeyFile",
    "EtcdScheme", "TyphaAddr", "TyphaK8sServiceName", "TyphaK8sNamespace", "TyphaReadTimeout", "TyphaWriteTimeout",
    "TyphaCAFile", "TyphaCertFile", "TyphaKeyFile", "TyphaCN", "TyphaURISAN", "DebugBPFCgroupV2",
    "DebugCPUProfilePath", "DebugPanicAfter", "DebugSimulateDataRace",
)  # fmt: skip
"""Felix's parameters of file and environment alone; nothing here reads them."""


def _parameters() -> Iterator[Parameter]:
    def variable(name: str) -> str:
        return _OTHER_VARIABLES.get(name, f"FELIX_{name.upper()}")

    for name, values, default, text in _IN_EFFECT:
        yield Parameter(name=name, variable=variable(name), values=values, default=default, description=text)
    for name, seconds, text in _IN_EFFECT_TIMES:
        yield Parameter(
            name=name, variable=variable(name), values=_TIME, default=seconds, duration=True, description=text
        )
    for name, schema, text in KNOWN:
        description = f"{text} Known, without effect."
        unread = Values(_text, "", schema)
        yield Parameter(
            name=name, variable=variable(name), values=unread, default=None, effect=False, description=description
        )


PARAMETERS: Mapping[str, Parameter] = {parameter.name: parameter for parameter in _parameters()}
"""By FelixConfiguration's field."""
_BY_VARIABLE = {parameter.variable: parameter for parameter in PARAMETERS.values()}
_WITHOUT_EFFECT = {f"FELIX_{name.upper()}" for name in _LOCAL}


def defaults() -> dict[str, Value]:
    """Every parameter that has an effect, as it is when nobody says."""
    return {name: parameter.default for name, parameter in PARAMETERS.items() if parameter.effect}


def parse_text(parameter: Parameter, text: str) -> Value:
    """A value from file or environment; `none` unsets. Raises ValueError: parameter, value and what is allowed."""
    if text.strip().lower() == "none" and parameter.default is None:
        return None
    try:
        return parameter.values.read(text.strip())
    except ValueError as error:
        raise ValueError(f"{parameter.name} is {text!r}: it must be {parameter.values.allowed}") from error


def from_variables(texts: Mapping[str, str]) -> tuple[dict[str, Value], list[str]]:
    """Values from FELIX_* variables, and the names that no parameter has. An empty text says nothing, as in Felix;
    `none` unsets. Raises ValueError at a wrong value."""
    found: dict[str, Value] = {}
    unknown: list[str] = []
    for name, text in texts.items():
        parameter = _BY_VARIABLE.get(name.upper())
        if parameter is None:
            if name.upper() not in _WITHOUT_EFFECT:
                unknown.append(name)
        elif parameter.effect and text.strip():
            try:
                found[parameter.name] = parse_text(parameter, text)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return found, unknown


def from_file(text: str) -> tuple[dict[str, Value], list[str]]:
    """Values from Felix's configuration file: `Name = value` lines, sections and # comments ignored. Raises ValueError
    at a wrong value, naming its line's name."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] not in "#;[")
    names = {f"FELIX_{name.strip().upper()}": (name.strip(), value.strip()) for name, _, value in pairs}
    found, unknown = from_variables({variable: value for variable, (_, value) in names.items()})
    return found, [names[variable][0] for variable in unknown]


class FelixConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="FelixConfiguration"
):
    """Settings of the nodes' agents: default for the cluster, node.<name> for one node, any other name for the nodes
    that its nodeSelector chooses. Of several the more special one decides, field by field; file and environment of a
    node's agent stand above them."""

    spec: dict[str, object] = {}
    """The settings. What is left out is decided elsewhere, or by default."""
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"

    @property
    def node_selector(self) -> str:
        """Which nodes an object of another name is for."""
        selector = self.spec.get("nodeSelector", "")
        return selector if isinstance(selector, str) else ""


_UNSET = (None, "")
"""What a field holds that says nothing."""


def values(configuration: FelixConfiguration) -> dict[str, Value]:
    """The parameters with an effect that an accepted object sets."""
    return {
        name: parse_field(PARAMETERS[name], value)
        for name, value in configuration.spec.items()
        if name in PARAMETERS and PARAMETERS[name].effect and value not in _UNSET
    }


def parse_field(parameter: Parameter, value: object) -> Value:
    """A value from an object: booleans and numbers as they are, durations in Go's spelling. Raises ValueError."""
    try:
        if type(value) not in parameter.values.json:
            raise ValueError
        return parameter.values.read(_as_text(parameter, value))
    except ValueError as error:
        raise ValueError(_DURATION if parameter.duration else parameter.values.allowed) from error


def _as_text(parameter: Parameter, value: object) -> str:
    """How file and environment would spell an object's value."""
    if parameter.duration:
        return str(parse_seconds(str(value)))
    if isinstance(value, list):
        return ",".join(map(_element, value))
    return str(value)


def _element(value: object) -> str:
    """An element of a list: text, or Calico's HealthTimeoutOverride, {name, timeout}."""
    if isinstance(value, dict) and value.keys() == {"name", "timeout"}:
        return f"{value['name']}={value['timeout']}"
    if not isinstance(value, str):
        raise ValueError
    return value


def problems(configuration: FelixConfiguration) -> Iterator[Problem]:
    """Wrong values, unknown fields, and a nodeSelector where none belongs."""
    name = configuration.metadata.name
    named = name == "default" or name.startswith("node.")
    for field, value in configuration.spec.items():
        if field == "nodeSelector":
            if not isinstance(value, str):
                yield Problem("spec.nodeSelector", value, "is not a selector", "write it as text")
            continue
        parameter = PARAMETERS.get(field)
        if parameter is None:
            yield Problem(f"spec.{field}", value, "is not a parameter", _meant(field))
        elif parameter.effect and value not in _UNSET:
            try:
                parse_field(parameter, value)
            except ValueError as error:
                yield Problem(f"spec.{field}", value, "is not allowed", f"write {error}")
    yield from _selector_problems(configuration, named)


def _meant(field: str) -> str:
    import difflib

    near = difflib.get_close_matches(field, PARAMETERS, n=1)
    return f"did you mean {near[0]}?" if near else "see the list of FelixConfiguration's fields"


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
    yield from selector_problems("spec.nodeSelector", selector)


def without_effect(configuration: FelixConfiguration) -> tuple[str, ...]:
    """Fields that the object sets and that Felix knows, but nothing here reads."""
    spec = configuration.spec
    return tuple(name for name in spec if name in PARAMETERS and not PARAMETERS[name].effect and spec[name] is not None)


def _spec_type() -> type[Struct]:
    """The spec as the API server is told of it."""
    selector = "Which nodes an object of another name than default and node.<name> is for, by their labels."
    fields = [("nodeSelector", selector, types.told(str, maxLength=SELECTOR))]
    fields += [(parameter.name, parameter.description, parameter.values.schema) for parameter in PARAMETERS.values()]
    return msgspec.defstruct(
        "FelixConfigurationSpec",
        [(name, Annotated[schema, Meta(description=text)], None) for name, text, schema in fields],
    )


_NAMED = "(self.metadata.name == 'default' || self.metadata.name.startsWith('node.'))"
_TABLES = "self.min >= 1 && self.max >= self.min"


def _validations() -> Iterator[Validation]:
    yield Validation(
        path="",
        field=".spec.nodeSelector",
        rule=f"!{_NAMED} || {unset('self.spec.nodeSelector')}",
        message="an object called default or node.<name> chooses its nodes by its name: leave it out",
        reason="FieldValueForbidden",
    )
    yield Validation(
        path="",
        field=".metadata.name",
        rule=f"{_NAMED} || !{unset('self.spec.nodeSelector')}",
        message="no node reads it: name it default or node.<node>, or set spec.nodeSelector",
    )
    for name, family in (
        ("natOutgoingAddress", 4),
        ("deviceRouteSourceAddress", 4),
        ("deviceRouteSourceAddressIPv6", 6),
    ):
        yield Validation(
            path=f"spec.{name}",
            rule=f"self == '' || (isIP(self) && ip(self).family() == {family})",
            message=f"is not an IPv{family} address",
        )
    yield Validation(
        path="spec",
        field=".routeTableRange",
        rule="!has(self.routeTableRange) || !has(self.routeTableRanges)",
        message="can't be combined with routeTableRanges: leave it out",
        reason="FieldValueForbidden",
    )
    yield Validation(
        path="spec.routeTableRange", rule=f"{_TABLES} && self.max <= 250", message="is not within 1 to 250"
    )
    yield Validation(path="spec.routeTableRanges[]", rule=_TABLES, message="is no range of route tables, 1 and above")


_DEFINITION = Definition(holds=(("spec", _spec_type),), validations=tuple(_validations()))

KIND = Kind(
    name="FelixConfiguration", group="projectcalico.org", version="v3", plural="felixconfigurations",
    type=FelixConfiguration, problems=problems, short_names=("felixconfig", "felixconfigs"),
    definition=_DEFINITION,
)  # fmt: skip
