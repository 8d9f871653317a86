"""Process settings: what this process needs to know before it can read anything else. Read once, never changed.

Names are calico/node's where it has one. Live settings are FelixConfiguration's (`felix.calc.configuration`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

DEFAULT_DATASTORE = "sqlite:/var/lib/calipy/datastore.sqlite3"
LAB_FOLDER = "/run/calipy-lab"
"""Where a running lab has its files unless CALIPY_LAB says otherwise."""


class SettingError(ValueError):
    """A setting that can't be used: names it, its value, what is allowed."""


class Settings(Struct, frozen=True, gc=False, kw_only=True):
    """All settings of the process. Paths are the product's defaults, in the lab too."""

    node: str
    """NODENAME, else the host name in lower case."""
    datastore: str = DEFAULT_DATASTORE
    """CALIPY_DATASTORE: `sqlite:<path>`."""
    run_folder: Path = Path("/run/calipy")
    """CALIPY_RUN_DIR: sockets and the ready file."""
    state_folder: Path = Path("/var/lib/calico")
    """CALIPY_STATE_DIR: nodename, mtu, release records."""
    cni_configuration_folder: Path = Path("/etc/cni/net.d")
    """CNI_NET_DIR."""
    cni_configuration_name: str = "10-calipy.conflist"
    """CNI_CONF_NAME."""
    status_grace_period_s: float = 60.0
    """CALIPY_STATUS_GRACE_PERIOD: for so long after the agent's last sign of life CNI STATUS stays OK."""
    ip: str = "autodetect"
    """IP: `autodetect`, an address (its subnet's prefix length is looked up or given), or `none`."""
    ip6: str = "none"
    """IP6: the same for IPv6."""
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
    no_default_pools: bool = False
    """NO_DEFAULT_POOLS."""
    pools: Mapping[int, DefaultPool] = {}
    """CALICO_IPV4POOL_* and CALICO_IPV6POOL_*, by family."""
    felix: Mapping[str, str] = {}
    """FELIX_*: environment's Felix parameters, by full name."""
    felix_file: Path = Path("/etc/calico/felix.cfg")
    """CALIPY_FELIX_CONFIG: Felix's configuration file; need not exist."""
    log_level: str = "info"
    """CALIPY_LOG_LEVEL, or --log-level: debug, info, warning, error."""
    log_format: str = "text"
    """CALIPY_LOG_FORMAT, or --log-format: text, json."""
    sysctl_folder: Path = Path("/proc/sys/net")
    """CALIPY_SYSCTL_ROOT: where net.* can be written."""


class DefaultPool(Struct, frozen=True, gc=False, kw_only=True):
    """A pool that start-up creates where the cluster has none of its family."""

    cidr: str
    block_size: int = 0
    nat_outgoing: bool = True
    vxlan: str = "Never"
    ipip: str = "Never"
    node_selector: str = "all()"
    disable_bgp_export: bool = False


def read(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises SettingError."""
    values: dict[str, object] = {}
    for name, attribute, parse in _READERS:
        if environment.get(name, "") != "":
            values[attribute] = parse(name, environment[name])
    return Settings(
        node=environment.get("NODENAME") or socket.gethostname().lower(),
        pools={family: _pool(environment, family) for family in (4, 6) if _has_pool(environment, family)},
        felix={name: value for name, value in environment.items() if name.startswith("FELIX_")},
        **values,  # type: ignore[arg-type]
    )


def client_datastore(environment: Mapping[str, str]) -> str:
    """The datastore that a command means which isn't told any: CALIPY_DATASTORE, else a running lab's, else the default
    (`Settings.datastore` has the form). Looks whether the lab's is there. Raises SettingError."""
    named = environment.get("CALIPY_DATASTORE", "")
    if named:
        return _datastore("CALIPY_DATASTORE", named)
    lab = _path("CALIPY_LAB", environment.get("CALIPY_LAB") or LAB_FOLDER) / "store" / "datastore.sqlite3"
    return f"sqlite:{lab}" if os.path.exists(lab) else DEFAULT_DATASTORE


def _refuse(name: str, value: str, allowed: str) -> NoReturn:
    raise SettingError(f"environment variable {name} is {value!r}: it must be {allowed}")


def _text(name: str, value: str) -> str:
    return value


def _path(name: str, value: str) -> Path:
    return Path(value) if value.startswith("/") else _refuse(name, value, "an absolute path")


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        _refuse(name, value, "a number of seconds")
    return seconds if seconds >= 0 else _refuse(name, value, "a number of seconds, 0 or more")


def _hold_time(name: str, value: str) -> int:
    if not value.isdecimal() or not (int(value) == 0 or 3 <= int(value) <= 65535):
        _refuse(name, value, "0 or 3 to 65535 seconds (RFC 4271 4.2)")
    return int(value)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        _refuse(name, value, "true or false")
    return value.lower() == "true"


def _datastore(name: str, value: str) -> str:
    return value if value.startswith("sqlite:/") else _refuse(name, value, "sqlite:<absolute path>")


def _backend(name: str, value: str) -> str:
    return value if value in ("bird", "vxlan", "none") else _refuse(name, value, "bird, vxlan or none")


def _level(name: str, value: str) -> str:
    levels = ("debug", "info", "warning", "error")
    return value.lower() if value.lower() in levels else _refuse(name, value, ", ".join(levels))


def _format(name: str, value: str) -> str:
    return value if value in ("text", "json") else _refuse(name, value, "text or json")


_READERS = (
    ("CALIPY_DATASTORE", "datastore", _datastore),
    ("CALIPY_RUN_DIR", "run_folder", _path),
    ("CALIPY_STATE_DIR", "state_folder", _path),
    ("CNI_NET_DIR", "cni_configuration_folder", _path),
    ("CNI_CONF_NAME", "cni_configuration_name", _text),
    ("CALIPY_STATUS_GRACE_PERIOD", "status_grace_period_s", _seconds),
    ("IP", "ip", _text),
    ("IP6", "ip6", _text),
    ("AS", "as_number", _text),
    ("CALICO_ROUTER_ID", "router_id", _text),
    ("CALICO_NETWORKING_BACKEND", "networking_backend", _backend),
    ("CALIPY_BGP_HOLD_TIME", "hold_time_s", _hold_time),
    ("NAMESPACE", "namespace", _text),
    ("NO_DEFAULT_POOLS", "no_default_pools", _flag),
    ("CALIPY_FELIX_CONFIG", "felix_file", _path),
    ("CALIPY_LOG_LEVEL", "log_level", _level),
    ("CALIPY_LOG_FORMAT", "log_format", _format),
    ("CALIPY_SYSCTL_ROOT", "sysctl_folder", _path),
)


def _has_pool(environment: Mapping[str, str], family: int) -> bool:
    return environment.get(f"CALICO_IPV{family}POOL_CIDR", "none") not in ("", "none")


def _pool(environment: Mapping[str, str], family: int) -> DefaultPool:
    """The defaults are calico/node's: NAT outgoing on for IPv4, off for IPv6; no encapsulation."""

    def setting(name: str, default: str) -> str:
        return environment.get(f"CALICO_IPV{family}POOL_{name}") or default

    size = setting("BLOCK_SIZE", "0")
    if not size.isdecimal():
        _refuse(f"CALICO_IPV{family}POOL_BLOCK_SIZE", size, "a prefix length")
    return DefaultPool(
        cidr=setting("CIDR", ""),
        block_size=int(size),
        nat_outgoing=_flag(
            f"CALICO_IPV{family}POOL_NAT_OUTGOING", setting("NAT_OUTGOING", "true" if family == 4 else "false")
        ),
        vxlan=setting("VXLAN", "Never"),
        ipip=setting("IPIP", "Never") if family == 4 else "Never",
        node_selector=setting("NODE_SELECTOR", "all()"),
        disable_bgp_export=_flag(f"CALICO_IPV{family}POOL_DISABLE_BGP_EXPORT", setting("DISABLE_BGP_EXPORT", "false")),
    )
