"""Answers to a container runtime, as JSON in the version that it asked for (CNI specification 1.1, section 5)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from calipy.cni.errors import CniError
from calipy.cni.inputs import AttachmentName
from calipy.cni.protocol import VERSIONS

HOST, CONTAINER = 0, 1
"""Places in `interfaces`."""


class Result(Struct, frozen=True, gc=False, kw_only=True):
    """What ADD has made, as Calico's plug-in tells it."""

    host_interface: str
    container_interface: str
    sandbox: str
    """CNI_NETNS, as the runtime spelled it."""
    mac: str
    """The container end's."""
    mtu: int
    addresses: tuple[str, ...]
    """Without prefix length."""
    routes: tuple[str, ...] = ()
    """The block of each address as a prefix."""


def prefix(address: str) -> str:
    """A single address as a prefix: 10.0.0.1/32, 2001:db8::1/128."""
    return f"{address}/128" if ":" in address else f"{address}/32"


def render(result: Result, version: str) -> bytes:
    """ADD's answer."""
    container: dict[str, object] = {
        "name": result.container_interface,
        "mac": result.mac,
        "sandbox": result.sandbox,
    }
    if version >= "1.1.0":
        container["mtu"] = result.mtu
    document = {
        "cniVersion": version,
        "interfaces": [{"name": result.host_interface}, container],
        "ips": [_ip(address, version) for address in result.addresses],
        "routes": [{"dst": destination} for destination in result.routes],
        "dns": {},
    }
    return msgspec.json.encode(document)


def _ip(address: str, version: str) -> dict[str, object]:
    """`version` went out with 1.0.0."""
    entry: dict[str, object] = {"version": "6" if ":" in address else "4"} if version < "1.0.0" else {}
    return {**entry, "address": prefix(address), "interface": CONTAINER}


def render_error(error: CniError, version: str) -> bytes:
    """An error's answer."""
    document = {"cniVersion": version, "code": int(error.code), "msg": error.message, "details": error.details}
    return msgspec.json.encode(document)


def render_versions(version: str) -> bytes:
    """VERSION's answer."""
    return msgspec.json.encode({"cniVersion": version, "supportedVersions": VERSIONS})


def render_attachments(attachments: Iterable[tuple[AttachmentName, tuple[str, ...]]]) -> bytes:
    """The answer to a GC that only shows what it would release: containerID, ifname, addresses of each."""
    entries = [
        {"containerID": name.container_id, "ifname": name.interface, "addresses": addresses}
        for name, addresses in attachments
    ]
    return msgspec.json.encode({"wouldRelease": entries})
