"""A network's configuration: the keys of Calico's plug-in that apply, read from what the runtime passes on stdin.

An unknown key is ignored, as the specification has it; a known key with a wrong value is refused with its name, its
value and what is allowed. Keys that only say where Calico's own plug-in finds its datastore, its log file or its
node's name have no meaning here: the agent knows these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct

from calipy.cni.errors import CniError, Code

MTU_LEAST, MTU_MOST = 68, 65535
QUEUES_MOST = 4096
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "fatal", "panic")
_OF_ONE_CONTAINER: Final = ("runtimeConfig", "prevResult", "cni.dev/valid-attachments", "cni.dev/attachments")
_REMEMBERED: Final = 16
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_FLAGS: Final = {"true": True, "false": False}


class Configuration(Struct, frozen=True, gc=False, kw_only=True):
    """One network's configuration, checked."""

    name: str = ""
    mtu: int = 0
    """The pods' MTU; 0 = the node's, as detected."""
    queues: int = 1
    """Transmit and receive queues of each veth end (num_queues)."""
    node: str = ""
    """nodename: empty, or the name that the agent must have."""
    ipv4: bool | None = None
    """ipam.assign_ipv4; None = not said."""
    ipv6: bool | None = None
    """ipam.assign_ipv6; None = not said."""
    ipv4_pools: tuple[str, ...] = ()
    """ipam.ipv4_pools: names or CIDRs; empty = any."""
    ipv6_pools: tuple[str, ...] = ()
    forwarding: bool = False
    """container_settings.allow_ip_forwarding."""
    log_level: str = "info"

    def pools(self, family: int) -> tuple[str, ...]:
        """Names or CIDRs of the pools of `family` (4 or 6) to draw from."""
        return self.ipv4_pools if family == 4 else self.ipv6_pools


def wrong(key: str, value: object, allowed: str, code: Code = Code.INVALID_CONFIGURATION) -> CniError:
    """The error for a key whose value can't be used."""
    return CniError(code, f"network configuration: {key} is {value!r}", f"allowed: {allowed}")


def read(document: Mapping[str, object]) -> Configuration:
    """The configuration in a decoded document, `name` included. Raises CniError (codes 2 and 7)."""
    return _read(msgspec.json.encode({key: value for key, value in document.items() if key not in _OF_ONE_CONTAINER}))


@lru_cache(_REMEMBERED)
def _read(encoded: bytes) -> Configuration:
    """All containers of a network come with the same configuration."""
    document = msgspec.json.decode(encoded, type=dict[str, object])
    _refuse_unsupported(document)
    ipam = section(document, "ipam")
    if (kind := text(ipam, "type", "ipam.type")) not in ("", "calico-ipam", "calipy-ipam"):
        raise wrong("ipam.type", kind, "calico-ipam, or none at all: addresses come from the agent's own allocator")
    container = section(document, "container_settings")
    return Configuration(
        name=network_name(document),
        mtu=_whole(document, "mtu", 0, (MTU_LEAST, MTU_MOST), "0 for the node's own"),
        queues=_whole(document, "num_queues", 1, (1, QUEUES_MOST), "absent for 1"),
        node=text(document, "nodename", "nodename"),
        ipv4=_flag_text(ipam, "assign_ipv4"),
        ipv6=_flag_text(ipam, "assign_ipv6"),
        ipv4_pools=_texts(ipam, "ipv4_pools"),
        ipv6_pools=_texts(ipam, "ipv6_pools"),
        forwarding=_flag(container, "allow_ip_forwarding", "container_settings.allow_ip_forwarding"),
        log_level=_log_level(document),
    )


def network_name(document: Mapping[str, object]) -> str:
    """The network's name; raises CniError 7 when it is missing or isn't one (CNI specification, "name")."""
    name = document.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong("name", name, "a letter or digit, then letters, digits, '_', '.' or '-'")
    return name


def section(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object within the configuration; empty where absent or null."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(key, value, "an object")
    return value


def text(document: Mapping[str, object], key: str, full_name: str) -> str:
    """A string within the configuration; empty where absent."""
    value = document.get(key, "")
    if not isinstance(value, str):
        raise wrong(full_name, value, "a string")
    return value


def _refuse_unsupported(document: Mapping[str, object]) -> None:
    gates = section(document, "feature_control")
    for gate in ("ip_addrs_no_ipam", "floating_ips"):
        if _flag(gates, gate, f"feature_control.{gate}"):
            reason = "addresses that no pool holds would be reached by no route of ours"
            raise wrong(f"feature_control.{gate}", True, f"false: {reason}", Code.UNSUPPORTED_FIELD)
    if document.get("readiness_gates"):
        remedy = "none: ADD waits for the agent itself"
        raise wrong("readiness_gates", document["readiness_gates"], remedy, Code.UNSUPPORTED_FIELD)
    if (device := text(document, "device_type", "device_type")) not in ("", "veth"):
        raise wrong("device_type", device, "veth", Code.UNSUPPORTED_FIELD)
    # Calico waits so long for policy and then lets the pod start. Here ADD answers only when policy is in force.
    _whole(document, "policy_setup_timeout_seconds", 0, (0, 2**31 - 1), "0")


def _whole(document: Mapping[str, object], key: str, default: int, bounds: tuple[int, int], else_: str) -> int:
    value = document.get(key, default)
    least, most = bounds
    good = isinstance(value, int) and not isinstance(value, bool) and (value == default or least <= value <= most)
    if not good or not isinstance(value, int):
        raise wrong(key, value, f"a whole number from {least} to {most}, or {else_}")
    return value


def _flag(document: Mapping[str, object], key: str, full_name: str) -> bool:
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise wrong(full_name, value, "true or false")
    return value


def _flag_text(ipam: Mapping[str, object], key: str) -> bool | None:
    """Calico's families are strings; a plain true or false means the same and is taken, too."""
    value = ipam.get(key)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _FLAGS:
        return _FLAGS[value]
    raise wrong(f"ipam.{key}", value, '"true" or "false"')


def _texts(ipam: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = ipam.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise wrong(f"ipam.{key}", value, "a list of pools' names or CIDRs")
    return tuple(value)


def _log_level(document: Mapping[str, object]) -> str:
    level = text(document, "log_level", "log_level").lower() or "info"
    if level not in LOG_LEVELS:
        raise wrong("log_level", document["log_level"], ", ".join(LOG_LEVELS))
    return level
