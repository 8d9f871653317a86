"""Process settings: what this process needs to know before it can read anything else. Read once, never changed.

Names are calico/node's where it has one. Live settings are FelixConfiguration's (`felix.calc.configuration`).
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from msgspec import Struct

from calipy.conversion.nodes import parse_as_number
from calipy.resources import namespaces, nodes
from calipy.resources.calipy_configurations import PolicyRecheck
from calipy.resources.durations import parse_seconds
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import ObjectMeta, name_problems
from calipy.resources.selectors import SelectorError, parse

DEFAULT_DATASTORE = "sqlite:/var/lib/calipy/datastore.sqlite3"
KUBERNETES = "kubernetes"
LAB_FOLDER = "/run/calipy-lab"
"""Where a running lab has its files unless CALIPY_LAB says otherwise."""
_SECONDS_MOST = 86_400
"""A day: whoever asks for more, or for no end, has mistaken the unit."""


T = TypeVar("T")


class SettingError(ValueError):
    """A setting that can't be used: names it, its value, what is allowed."""


class Autodetection(Struct, frozen=True, gc=False):
    """How an address is found where none is given (calico.md 7)."""

    method: Literal["first-found", "can-reach", "interface", "skip-interface", "cidr", "kubernetes-internal-ip"] = (
        "first-found"
    )
    arguments: tuple[str, ...] = ()
    """Regular expressions of interface names, CIDRs, or one destination."""

    def __str__(self) -> str:
        return f"{self.method}={','.join(self.arguments)}" if self.arguments else self.method


class Settings(Struct, frozen=True, gc=False, kw_only=True):
    """All settings of the process. Paths are the product's defaults, in the lab too."""

    node: str
    """NODENAME, else the host name in lower case."""
    node_labels: Mapping[str, str] = {}
    """CALIPY_NODE_LABELS, `rack=a,zone=b`: on the Node object where the agent makes it, as kubelet's --node-labels."""
    datastore: str = DEFAULT_DATASTORE
    """CALIPY_DATASTORE: `sqlite:<path>`, `kubernetes:<kubeconfig>`, or `kubernetes`: by KUBECONFIG, else the pod's
    service account. Left out, it is `kubernetes` where DATASTORE_TYPE says so, KUBECONFIG is set, or this is a pod."""
    run_folder: Path = Path("/run/calipy")
    """CALIPY_RUN_DIR: sockets, the ready file, and the lock that one agent a node has."""
    bgp_folder: Path = Path("/run/calipy")
    """CALIPY_BGP_DIR: where the agent and the BGP sidecar meet; left out, it is the run folder. ExaBGP's configuration
    in it has the peers' passwords."""
    state_folder: Path = Path("/var/lib/calico")
    """CALIPY_STATE_DIR: nodename, mtu, release records."""
    cni_configuration_folder: Path = Path("/etc/cni/net.d")
    """CNI_NET_DIR."""
    cni_configuration_name: str = "10-calipy.conflist"
    """CNI_CONF_NAME."""
    status_grace_period_s: float = 60.0
    """CALIPY_STATUS_GRACE_PERIOD: so long after the agent's last sign of life CNI STATUS stays OK, 0 to 86400 s."""
    ip: str = "autodetect"
    """IP: `autodetect`, an address (its subnet's prefix length is looked up or given), or `none`."""
    ip6: str = "none"
    """IP6: the same for IPv6."""
    ip_method: Autodetection = Autodetection()
    """IP_AUTODETECTION_METHOD: first-found, can-reach=D, interface=RE,..., skip-interface=RE,..., cidr=C,... or
    kubernetes-internal-ip."""
    ip6_method: Autodetection = Autodetection()
    """IP6_AUTODETECTION_METHOD: the same for IPv6."""
    poll_interval_s: float = 60.0
    """AUTODETECT_POLL_INTERVAL: how often can-reach is asked anew, for nobody tells of it; a duration, 1s to 24h. What
    the kernel and the store tell of is looked at at once."""
    check_node_address: bool = True
    """DISABLE_NODE_IP_CHECK, the other way round: whether another Node may have the address that this one takes."""
    use_pod_cidr: bool = False
    """USE_POD_CIDR: this node's addresses are of its Node's podCIDRs alone."""
    as_number: str = ""
    """AS: written to the node's annotation; empty = BGPConfiguration's."""
    router_id: str = ""
    """CALICO_ROUTER_ID: an IPv4 address, `hash` = from the node's name; empty = the node's IPv4 address."""
    networking_backend: str = "bird"
    """CALICO_NETWORKING_BACKEND: `bird` = BGP by the sidecar; `vxlan` or `none` = no BGP."""
    hold_time_s: int = 90
    """CALIPY_BGP_HOLD_TIME: BGP hold time where no peer sets keepaliveTime (RFC 4271 4.2: 0 or at least 3)."""
    namespace: str = "kube-system"
    """NAMESPACE: the agent's own, where Secrets with BGP passwords are."""
    cluster_type: str = "calipy,bgp"
    """CLUSTER_TYPE: ClusterInformation's, where this node makes it."""
    pools: Mapping[int, DefaultPool] = {}
    """CALICO_IPV4POOL_* and CALICO_IPV6POOL_*, by family. A family whose CIDR is `none` is left out, both where
    NO_DEFAULT_POOLS is true."""
    felix: Mapping[str, str] = {}
    """FELIX_*: environment's Felix parameters, by full name."""
    felix_file: Path = Path("/etc/calico/felix.cfg")
    """CALIPY_FELIX_CONFIG: Felix's configuration file; need not exist."""
    log_level: str = ""
    """CALIPY_LOG_LEVEL, or --log-level: debug, info, warning, error; empty = what logSeverityScreen says."""
    log_format: str = "text"
    """CALIPY_LOG_FORMAT, or --log-format: text, json."""
    policy_recheck: PolicyRecheck | None = None
    """CALIPY_POLICYRECHECK: Disabled or Enabled, whatever CalipyConfiguration says; None = what that says."""
    sysctl_folder: Path = Path("/proc/sys/net")
    """CALIPY_SYSCTL_ROOT: where net.* can be written."""

    @property
    def embedded(self) -> bool:
        """Whether the datastore is the built-in one, where nobody else makes Nodes and Pods."""
        return self.datastore.startswith("sqlite:")


class DefaultPool(Struct, frozen=True, gc=False, kw_only=True):
    """A pool that start-up creates where the cluster has none of its family."""

    cidr: str = ""
    """Empty: to be found (`node.pool_ranges`)."""
    block_size: int = 0
    nat_outgoing: bool = True
    vxlan: str = "Never"
    ipip: str = "Never"
    node_selector: str = "all()"
    disable_bgp_export: bool = False


def read(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises SettingError."""
    values: dict[str, object] = {}
    for name, attribute, reader in _READERS:
        if environment.get(name, "") != "":
            values[attribute] = reader(name, environment[name])
    if "run_folder" in values:
        values.setdefault("bgp_folder", values["run_folder"])
    return Settings(
        node=_node(environment),
        datastore=_said_datastore(environment) or (KUBERNETES if _has_server(environment) else DEFAULT_DATASTORE),
        pools=_pools(environment),
        felix={name: value for name, value in environment.items() if name.startswith("FELIX_")},
        **values,  # type: ignore[arg-type]
    )


WITHOUT_EFFECT: Mapping[str, str] = {
    "CALICO_DISABLE_FILE_LOGGING": "the agent logs to its standard output alone",
    "CALICO_EARLY_NETWORKING": "CalIPy has no such part",
    "CALICO_MANAGE_CNI": "the CNI forwarder has no credentials that would have to be renewed",
    "CALICO_NODENAME_FILE": "nodename is in CALIPY_STATE_DIR",
    "CALICO_SHUTDOWN_TIMESTAMP_FILE": "no such file is written",
    "CALICO_STARTUP_LOGLEVEL": "set CALIPY_LOG_LEVEL",
    "CNI_NETWORK_CONFIG": "the agent writes its own conflist",
    "CNI_NETWORK_CONFIG_FILE": "the agent writes its own conflist",
    "CNI_OLD_CONF_NAME": "remove an old conflist yourself",
    "SKIP_CNI_BINARIES": "there is one binary: leave out `calipy install-cni`",
    "WAIT_FOR_DATASTORE": "the agent always waits for its datastore",
}
"""Names of calico/node and of its installer that nothing here reads, and why."""
_OTHERS = frozenset(
    {
        "CALICO_K8S_NODE_REF",
        "CALIPY_DATASTORE",
        "DATASTORE_TYPE",
        "CALIPY_LAB",
        "CALIPY_CNI_BIN_DIR",
        "KUBECONFIG",
        "KUBERNETES_SERVICE_HOST",
        "NODENAME",
        "NO_DEFAULT_POOLS",
        "UPDATE_CNI_BINARIES",
    }  # fmt: skip
)
"""Those that are read by others than `_READERS`."""
_OURS = re.compile(r"(CALICO|CALIPY)_")
_OF_SERVICES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_.*)?)$")
"""What kubelet puts into an environment for each Service."""


def known() -> frozenset[str]:
    """The names of all variables that have an effect; FELIX_* besides."""
    parts = ("CIDR", "BLOCK_SIZE", "NAT_OUTGOING", "VXLAN", "NODE_SELECTOR", "DISABLE_BGP_EXPORT")
    pools = (f"CALICO_IPV{family}POOL_{part}" for family in (4, 6) for part in parts)
    return _OTHERS | {name for name, _, _ in _READERS} | {*pools, "CALICO_IPV4POOL_IPIP"}


def without_effect(environment: Mapping[str, str]) -> Iterator[str]:
    """Sentences on variables that look like ours and that nothing reads."""
    names = known()
    for name in sorted(environment):
        if name in WITHOUT_EFFECT:
            yield f"environment variable {name} has no effect: {WITHOUT_EFFECT[name]}"
        elif _OURS.match(name) and name not in names and not _OF_SERVICES.search(name):
            yield f"environment variable {name} has no effect: CalIPy knows no such setting"


def client_datastore(environment: Mapping[str, str]) -> str:
    """The datastore that a command means which isn't told any: CALIPY_DATASTORE's or DATASTORE_TYPE's, else a running
    lab's, else the cluster's of KUBECONFIG or this pod, else the default (`Settings.datastore` has the form). Looks
    whether the lab's is there. Raises SettingError."""
    if said := _said_datastore(environment):
        return said
    lab = _path("CALIPY_LAB", environment.get("CALIPY_LAB") or LAB_FOLDER) / "store" / "datastore.sqlite3"
    if os.path.exists(lab):
        return f"sqlite:{lab}"
    return KUBERNETES if _has_server(environment) else DEFAULT_DATASTORE


def _said_datastore(environment: Mapping[str, str]) -> str:
    """As CALIPY_DATASTORE or Calico's DATASTORE_TYPE name it; empty where neither does."""
    if named := environment.get("CALIPY_DATASTORE", ""):
        return _datastore("CALIPY_DATASTORE", named)
    kind = environment.get("DATASTORE_TYPE", "")
    if kind not in ("", KUBERNETES):
        _refuse("DATASTORE_TYPE", kind, "kubernetes, or left out: CALIPY_DATASTORE=sqlite:<path> names a file")
    return kind


def _has_server(environment: Mapping[str, str]) -> bool:
    """True where kubeconfigs are named, or in a pod: there is an API server then."""
    return bool(environment.get("KUBECONFIG") or environment.get("KUBERNETES_SERVICE_HOST"))


def _refuse(name: str, value: str, allowed: str) -> NoReturn:
    raise SettingError(f"environment variable {name} is {value!r}: it must be {allowed}")


def _node(environment: Mapping[str, str]) -> str:
    name = environment.get("NODENAME", "").strip() or socket.gethostname().lower()
    kubernetes = environment.get("CALICO_K8S_NODE_REF") or name
    if kubernetes != name:
        _refuse("CALICO_K8S_NODE_REF", kubernetes, f"left out, or {name} as NODENAME: the Node is Kubernetes' own")
    problem = next(name_problems(nodes.KIND, ObjectMeta(name=name)), None)
    return _refuse("NODENAME", name, f"a node's name: {problem.remedy}") if problem else name


def _labels(name: str, value: str) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in value.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        _refuse(name, value, "labels, key=value,...")
    labels = {key: text for key, _, text in pairs}
    problem = next(metadata_problems(ObjectMeta(labels=labels)), None)
    return _refuse(name, value, f"labels: {problem.value!r} {problem.reason}: {problem.remedy}") if problem else labels


def _words(name: str, value: str) -> str:
    return value if re.fullmatch(r"[a-z0-9,-]+", value) else _refuse(name, value, "words with commas between, k8s,bgp")


def _namespace(name: str, value: str) -> str:
    problem = next(name_problems(namespaces.KIND, ObjectMeta(name=value)), None)
    return _refuse(name, value, f"a namespace's name: {problem.remedy}") if problem else value


def _file_name(name: str, value: str) -> str:
    return value if "/" not in value else _refuse(name, value, "a file's name, without its folder")


def _is_address(text: str, family: int) -> bool:
    try:
        return ipaddress.ip_interface(text).version == family
    except ValueError:
        return False


def _address(family: int) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value in ("autodetect", "none") or _is_address(value, family):
            return value
        _refuse(name, value, f"autodetect, none, or an IPv{family} address with or without its prefix length")

    return read


def _as_number(name: str, value: str) -> str:
    return value if parse_as_number(value) else _refuse(name, value, "an AS number, 64512 or 1.10")


def _router_id(name: str, value: str) -> str:
    if value == "hash" or ("/" not in value and _is_address(value, 4)):
        return value
    _refuse(name, value, "an IPv4 address or hash")


_METHODS = "first-found, can-reach=D, interface=RE,..., skip-interface=RE,..., cidr=C,... or kubernetes-internal-ip"


def _autodetection(name: str, value: str) -> Autodetection:
    method, equals, text = value.partition("=")
    arguments = tuple(part for part in re.split(r"\s*,\s*", text.strip()) if part)
    match method:
        case "first-found" | "kubernetes-internal-ip" if not equals:
            return Autodetection(method)
        case "can-reach" if len(arguments) == 1:
            return Autodetection(method, arguments)
        case "interface" | "skip-interface" if arguments and all(map(_is_pattern, arguments)):
            return Autodetection(method, arguments)
        case "cidr" if arguments and all(_is_cidr(part) for part in arguments):
            return Autodetection(method, arguments)
    _refuse(name, value, _METHODS)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _is_cidr(text: str) -> bool:
    return "/" in text and (_is_address(text, 4) or _is_address(text, 6))


def _path(name: str, value: str) -> Path:
    return Path(value) if value.startswith("/") else _refuse(name, value, "an absolute path")


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    return seconds if 0 <= seconds <= _SECONDS_MOST else _refuse(name, value, f"0 to {_SECONDS_MOST} seconds")


def _interval(name: str, value: str) -> float:
    try:
        seconds = parse_seconds(value)
    except ValueError:
        seconds = math.nan
    return seconds if 1 <= seconds <= _SECONDS_MOST else _refuse(name, value, "a duration, 1s to 24h")


def _hold_time(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()) or not (int(value) == 0 or 3 <= int(value) <= 65535):
        _refuse(name, value, "0 or 3 to 65535 seconds (RFC 4271 4.2)")
    return int(value)


def _flag(name: str, value: str) -> bool:
    lowered = value.lower()
    if lowered in ("true", "1", "yes", "y", "t"):
        return True
    return False if lowered in ("false", "0", "no", "n", "f") else _refuse(name, value, "true or false")


def _not(name: str, value: str) -> bool:
    return not _flag(name, value)


def _datastore(name: str, value: str) -> str:
    if value == KUBERNETES or value.startswith(("sqlite:/", f"{KUBERNETES}:/")):
        return value
    _refuse(name, value, "sqlite:<absolute path>, kubernetes, or kubernetes:<absolute path of a kubeconfig>")


def _backend(name: str, value: str) -> str:
    return value if value in ("bird", "vxlan", "none") else _refuse(name, value, "bird, vxlan or none")


def _level(name: str, value: str) -> str:
    levels = ("debug", "info", "warning", "error")
    return value.lower() if value.lower() in levels else _refuse(name, value, ", ".join(levels))


def _policy_recheck(name: str, value: str) -> PolicyRecheck:
    values: Mapping[str, PolicyRecheck] = {"disabled": "Disabled", "enabled": "Enabled"}
    return values.get(value.lower()) or _refuse(name, value, "Disabled or Enabled")


def _format(name: str, value: str) -> str:
    return value if value in ("text", "json") else _refuse(name, value, "text or json")


_READERS = (
    ("CALIPY_NODE_LABELS", "node_labels", _labels),
    ("CALIPY_RUN_DIR", "run_folder", _path),
    ("CALIPY_BGP_DIR", "bgp_folder", _path),
    ("CALIPY_STATE_DIR", "state_folder", _path),
    ("CNI_NET_DIR", "cni_configuration_folder", _path),
    ("CNI_CONF_NAME", "cni_configuration_name", _file_name),
    ("CALIPY_STATUS_GRACE_PERIOD", "status_grace_period_s", _seconds),
    ("IP", "ip", _address(4)),
    ("IP6", "ip6", _address(6)),
    ("IP_AUTODETECTION_METHOD", "ip_method", _autodetection),
    ("IP6_AUTODETECTION_METHOD", "ip6_method", _autodetection),
    ("AUTODETECT_POLL_INTERVAL", "poll_interval_s", _interval),
    ("DISABLE_NODE_IP_CHECK", "check_node_address", _not),
    ("USE_POD_CIDR", "use_pod_cidr", _flag),
    ("AS", "as_number", _as_number),
    ("CALICO_ROUTER_ID", "router_id", _router_id),
    ("CALICO_NETWORKING_BACKEND", "networking_backend", _backend),
    ("CALIPY_BGP_HOLD_TIME", "hold_time_s", _hold_time),
    ("NAMESPACE", "namespace", _namespace),
    ("CLUSTER_TYPE", "cluster_type", _words),
    ("CALIPY_FELIX_CONFIG", "felix_file", _path),
    ("CALIPY_LOG_LEVEL", "log_level", _level),
    ("CALIPY_LOG_FORMAT", "log_format", _format),
    ("CALIPY_POLICYRECHECK", "policy_recheck", _policy_recheck),
    ("CALIPY_SYSCTL_ROOT", "sysctl_folder", _path),
)


def _pools(environment: Mapping[str, str]) -> dict[int, DefaultPool]:
    given = {family: environment.get(f"CALICO_IPV{family}POOL_CIDR", "") for family in (4, 6)}
    if _flag("NO_DEFAULT_POOLS", environment.get("NO_DEFAULT_POOLS") or "false"):
        for family, cidr in given.items():
            if cidr not in ("", "none"):
                remedy = "left out, or none, where NO_DEFAULT_POOLS is true"
                _refuse(f"CALICO_IPV{family}POOL_CIDR", cidr, remedy)
        return {}
    return {family: _pool(environment, family) for family, cidr in given.items() if cidr != "none"}


def _pool(environment: Mapping[str, str], family: int) -> DefaultPool:
    """The defaults are calico/node's: NAT outgoing on for IPv4, off for IPv6; no encapsulation."""

    def setting(name: str, default: str, reader: Callable[[str, str], T]) -> T:
        full = f"CALICO_IPV{family}POOL_{name}"
        return reader(full, environment.get(full) or default)

    return DefaultPool(
        cidr=setting("CIDR", "", _range(family)) if environment.get(f"CALICO_IPV{family}POOL_CIDR") else "",
        block_size=setting("BLOCK_SIZE", "26" if family == 4 else "122", _block_size(family)),
        nat_outgoing=setting("NAT_OUTGOING", "true" if family == 4 else "false", _flag),
        vxlan=setting("VXLAN", "Never", _encapsulation),
        ipip=setting("IPIP", "Never", _encapsulation) if family == 4 else "Never",
        node_selector=setting("NODE_SELECTOR", "all()", _selector),
        disable_bgp_export=setting("DISABLE_BGP_EXPORT", "false", _flag),
    )


def _range(family: int) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if not _is_cidr(value) or not _is_address(value, family):
            _refuse(name, value, f"an IPv{family} CIDR, or none")
        found = ipaddress.ip_interface(value)
        fits = found.ip == found.network.network_address
        return value if fits else _refuse(name, value, f"masked, {found.network}")

    return read


def _block_size(family: int) -> Callable[[str, str], int]:
    low, high = (20, 32) if family == 4 else (116, 128)

    def read(name: str, value: str) -> int:
        if not (value.isascii() and value.isdecimal()) or not low <= int(value) <= high:
            _refuse(name, value, f"a prefix length, {low} to {high}")
        return int(value)

    return read


def _encapsulation(name: str, value: str) -> str:
    modes = {"never": "Never", "off": "Never", "always": "Always", "crosssubnet": "CrossSubnet"}
    return modes.get(value.lower().replace("-", "")) or _refuse(name, value, "Never, Always or CrossSubnet")


def _selector(name: str, value: str) -> str:
    try:
        parse(value)
    except SelectorError as error:
        _refuse(name, value, f"a selector ({error})")
    return value
