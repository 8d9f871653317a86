"""What a runtime adds to a network's configuration: runtimeConfig, prevResult, the list of valid attachments."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from calipy.cni.configuration import wrong


class PortMapping(Struct, frozen=True, gc=False, kw_only=True):
    """One of runtimeConfig.portMappings: a port of the node that leads to one of the container."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""


class AttachmentName(Struct, frozen=True, gc=False, order=True):
    """What names an attachment within one network: `cni.dev/valid-attachments` has a list of these."""

    container_id: str
    interface: str


class Previous(Struct, frozen=True, gc=False, kw_only=True):
    """prevResult, the part that can be compared: link names, the container's MAC, addresses with prefix lengths."""

    host_interface: str = ""
    mac: str = ""
    addresses: tuple[str, ...] = ()


def lowered(document: Mapping[str, object]) -> Mapping[str, object]:
    """Runtimes write these keys as Go has them (HostPort), and Go's decoders ignore case."""
    return {key.lower(): value for key, value in document.items()}


def pod_annotations(runtime: Mapping[str, object]) -> Mapping[str, str]:
    """The pod's annotations, where the runtime was told to pass them (null when the pod has none)."""
    value = runtime.get("io.kubernetes.cri.pod-annotations") or {}
    try:
        return msgspec.convert(value, dict[str, str])
    except msgspec.ValidationError as error:
        raise wrong("runtimeConfig.io.kubernetes.cri.pod-annotations", value, "an object of strings") from error


def port_mappings(runtime: Mapping[str, object]) -> tuple[PortMapping, ...]:
    """The ports of the node that are to lead to the container."""
    value = runtime.get("portmappings") or []
    if not isinstance(value, list):
        raise wrong("runtimeConfig.portMappings", value, "a list of objects")
    return tuple(_port_mapping(entry) for entry in value)


def _port_mapping(entry: object) -> PortMapping:
    fields = lowered(entry) if isinstance(entry, dict) else {}
    host, container = fields.get("hostport"), fields.get("containerport")
    protocol, address = fields.get("protocol") or "tcp", fields.get("hostip") or ""
    ports = isinstance(host, int) and isinstance(container, int) and 0 <= host <= 65535 and 0 < container <= 65535
    if not ports or not isinstance(protocol, str) or not isinstance(address, str):
        raise wrong("runtimeConfig.portMappings", entry, "hostPort, containerPort (1 to 65535), protocol, hostIP")
    assert isinstance(host, int)
    assert isinstance(container, int)
    return PortMapping(host_port=host, container_port=container, protocol=protocol.lower(), host_ip=address)


class _Interface(Struct):
    name: str = ""
    mac: str = ""
    sandbox: str = ""


class _Address(Struct):
    address: str = ""


class _Result(Struct):
    interfaces: list[_Interface] = []
    ips: list[_Address] = []


def previous(document: Mapping[str, object]) -> Previous:
    """prevResult, as CHECK needs it. DEL goes by the container ID alone: runtimes leave prevResult out as they like."""
    value = document.get("prevResult")
    try:
        result = msgspec.convert(value, _Result)
    except msgspec.ValidationError as error:
        raise wrong("prevResult", value, f"the result of ADD: {error}") from error
    host = next((link.name for link in result.interfaces if not link.sandbox), "")
    mac = next((link.mac for link in result.interfaces if link.sandbox), "")
    return Previous(host_interface=host, mac=mac, addresses=tuple(entry.address for entry in result.ips))


class _ValidAttachment(Struct):
    container_id: str = field(name="containerID")
    ifname: str


def valid(document: Mapping[str, object]) -> frozenset[AttachmentName]:
    """Without the list everything would go: its absence is an error, not an empty list."""
    value = document.get("cni.dev/valid-attachments")
    try:
        entries = msgspec.convert(value, list[_ValidAttachment])
    except msgspec.ValidationError as error:
        raise wrong("cni.dev/valid-attachments", value, f"a list of containerID and ifname: {error}") from error
    return frozenset(AttachmentName(entry.container_id, entry.ifname) for entry in entries)
