"""Requests of a container runtime: environment and standard input -> Request (CNI specification 1.1, 2 and 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from calipy.cni import configuration, inputs
from calipy.cni.configuration import Configuration
from calipy.cni.errors import CniError, Code
from calipy.cni.inputs import AttachmentName, PortMapping, Previous

VERSIONS: Final = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST: Final = VERSIONS[-1]
HANDLE_MOST: Final = 230
"""Network name, a dot and container ID: they name an IPAMHandle (253 characters in Kubernetes) and a file (255)."""
_CONTAINER_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_INTERFACE: Final = re.compile(r"[^\s/:\x00]{1,15}")


class Verb(StrEnum):
    """What a runtime may ask."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    STATUS = "STATUS"
    GC = "GC"
    VERSION = "VERSION"


SINCE: Final = {Verb.CHECK: "0.4.0", Verb.GC: "1.1.0", Verb.STATUS: "1.1.0"}
"""The first version of the specification that has a verb."""


class PodReference(Struct, frozen=True, gc=False):
    """A pod as CNI_ARGS name it."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Request(Struct, frozen=True, gc=False, kw_only=True):
    """One request, checked. What a verb doesn't carry is empty."""

    verb: Verb
    version: str
    container_id: str = ""
    interface: str = ""
    """CNI_IFNAME: the interface's name in the container."""
    netns: str = ""
    """CNI_NETNS as the runtime sees it; the namespace itself comes as a file descriptor."""
    configuration: Configuration = Configuration()
    pod: PodReference | None = None
    """None for a container outside Kubernetes."""
    address: str = ""
    """IP= of CNI_ARGS: the address asked for."""
    annotations: Mapping[str, str] = {}
    """runtimeConfig's io.kubernetes.cri.pod-annotations."""
    port_mappings: tuple[PortMapping, ...] = ()
    previous: Previous | None = None
    valid: frozenset[AttachmentName] = frozenset()
    """GC: the attachments that stay."""

    @property
    def network(self) -> str:
        """The network's name."""
        return self.configuration.name


def parse(environment: Mapping[str, str], stdin: str) -> Request:
    """The request. Raises CniError: 1 version, 2 and 7 configuration, 4 environment, 6 undecodable."""
    verb = _verb(environment)
    document = _document(stdin)
    version = _version(verb, document)
    if verb in (Verb.VERSION, Verb.STATUS):
        return Request(verb=verb, version=version)
    settings = configuration.read(document)
    if verb is Verb.ADD and document.get("prevResult") is not None:
        raise configuration.wrong("prevResult", "present in ADD", "this plug-in must be the first of its list")
    if verb is Verb.GC:
        return Request(verb=verb, version=version, configuration=settings, valid=inputs.valid(document))
    arguments = _arguments(environment.get("CNI_ARGS", ""))
    runtime = inputs.lowered(configuration.section(document, "runtimeConfig"))
    return Request(
        verb=verb,
        version=version,
        container_id=_container_id(environment, settings.name),
        interface=_interface(environment),
        netns=_netns(verb, environment),
        configuration=settings,
        pod=_pod(arguments),
        address=arguments.get("IP", ""),
        annotations=inputs.pod_annotations(runtime),
        port_mappings=inputs.port_mappings(runtime),
        previous=inputs.previous(document) if verb is Verb.CHECK else None,
    )


def version_of(stdin: str) -> str:
    """The version to answer in when a request can't be parsed: the one asked for if we speak it, else the newest."""
    try:
        found = _document(stdin).get("cniVersion")
    except CniError:
        return NEWEST
    return found if isinstance(found, str) and found in VERSIONS else NEWEST


def _verb(environment: Mapping[str, str]) -> Verb:
    value = environment.get("CNI_COMMAND", "")
    if value not in Verb.__members__:
        raise _environment_error("CNI_COMMAND", value, ", ".join(Verb))
    return Verb(value)


def _document(stdin: str) -> Mapping[str, object]:
    try:
        return msgspec.json.decode(stdin, type=dict[str, object])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CniError(Code.UNDECODABLE, f"standard input isn't a network configuration: {error}") from error


def _version(verb: Verb, document: Mapping[str, object]) -> str:
    value = document.get("cniVersion", "0.1.0")
    spoken = ", ".join(VERSIONS)
    if verb is Verb.VERSION:
        return value if isinstance(value, str) and value in VERSIONS else NEWEST
    if not isinstance(value, str) or value not in VERSIONS:
        said = repr(value) if "cniVersion" in document else "absent (0.1.0)"
        message = f"network configuration: cniVersion is {said}: incompatible CNI versions"
        raise CniError(Code.INCOMPATIBLE_VERSION, message, f"this plug-in speaks {spoken}")
    if value < SINCE.get(verb, value):
        message = f"network configuration: cniVersion is {value!r}: {verb} is not in that version"
        raise CniError(Code.INCOMPATIBLE_VERSION, message, f"{verb} came with {SINCE[verb]}")
    return value


def _environment_error(name: str, value: str, allowed: str) -> CniError:
    return CniError(Code.INVALID_ENVIRONMENT, f"environment variable {name} is {value!r}", f"it must be {allowed}")


def _container_id(environment: Mapping[str, str], network: str) -> str:
    value = environment.get("CNI_CONTAINERID", "")
    if not _CONTAINER_ID.fullmatch(value):
        raise _environment_error(
            "CNI_CONTAINERID", value, "a letter or digit, then letters, digits, '_', '.' or '-' (CNI specification)"
        )
    if len(network) + 1 + len(value) > HANDLE_MOST:
        raise _environment_error("CNI_CONTAINERID", value, f"with the network's name at most {HANDLE_MOST} characters")
    return value


def _interface(environment: Mapping[str, str]) -> str:
    value = environment.get("CNI_IFNAME", "")
    if not _INTERFACE.fullmatch(value) or value in (".", "..") or len(value.encode()) > 15:
        raise _environment_error("CNI_IFNAME", value, "1 to 15 bytes, not . or .., without / : or white space")
    return value


def _netns(verb: Verb, environment: Mapping[str, str]) -> str:
    value = environment.get("CNI_NETNS", "")
    if not value and verb is not Verb.DEL:
        raise _environment_error("CNI_NETNS", value, f"the container's network namespace for {verb}")
    return value


def _arguments(value: str) -> Mapping[str, str]:
    """CNI_ARGS: `KEY=VALUE` joined by `;`, in any order. Unknown keys are ignored, whatever IgnoreUnknown says."""
    pairs = [pair.partition("=") for pair in value.split(";") if pair]
    for key, sign, _ in pairs:
        if not sign:
            raise _environment_error("CNI_ARGS", value, f"KEY=VALUE pairs joined by ';': {key!r} has no '='")
    return {key: argument for key, _, argument in pairs}


def _pod(arguments: Mapping[str, str]) -> PodReference | None:
    """Only a name within a namespace is a pod: podman gives its container's name without one."""
    namespace, name = arguments.get("K8S_POD_NAMESPACE", ""), arguments.get("K8S_POD_NAME", "")
    return PodReference(namespace, name, arguments.get("K8S_POD_UID", "")) if namespace and name else None
