"""HostEndpoint (projectcalico.org/v3): an interface of a node, or all of them, that policies are to govern."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources import dns_names
from calipy.resources.definitions import Column, Constraint, Definition, Validation
from calipy.resources.dns_names import dns_name_problems
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.policy_problems import port_name_problems
from calipy.resources.policy_rules import PROTOCOL_NUMBERS, Protocol, protocol_number


class EndpointPort(Struct, frozen=True, gc=False, kw_only=True):
    """A port that rules may mean by its name."""

    name: str
    """The name: lower-case letters, digits and single dashes between them, 15 at most, a letter among them."""
    protocol: Protocol
    """The port's protocol: TCP, UDP or SCTP, or its number."""
    port: int
    """The port, 1 to 65535."""


class HostEndpointSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico HostEndpointSpec. At least one of `interface_name` and `expected_ips` is there."""

    node: str = ""
    """The name of the node whose interface this is. Required."""
    interface_name: str = ""
    """The interface's name, eth0; * stands for all interfaces of the node, those of its own pods included. Left out, it
    is the interface that has one of expectedIPs."""
    expected_ips: tuple[str, ...] = field(name="expectedIPs", default=())
    """Addresses that the interface is expected to have. Selectors in rules that select this endpoint mean these
    addresses, and no others. Required where interfaceName is left out."""
    profiles: tuple[str, ...] = ()
    """Names of Profiles whose rules apply after all policies, in this order."""
    ports: tuple[EndpointPort, ...] = ()
    """Ports that rules may mean by their names."""


class HostEndpoint(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="HostEndpoint"):
    """A host endpoint."""

    spec: HostEndpointSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


ALL_INTERFACES = "*"
_INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
_WITH_PORTS = {PROTOCOL_NUMBERS[name] for name in ("TCP", "UDP", "SCTP")}


def problems(endpoint: HostEndpoint) -> Iterator[Problem]:
    """Calico's validation of HostEndpoint."""
    spec = endpoint.spec
    yield from metadata_problems(endpoint.metadata)
    if not spec.node:
        yield Problem("spec.node", "", "is empty", "name the node whose interface this is")
    else:
        yield from dns_name_problems("spec.node", spec.node)
    if not spec.interface_name and not spec.expected_ips:
        reason = "is empty, and so is expectedIPs: no interface is meant"
        yield Problem("spec.interfaceName", "", reason, "name the interface, write * for all, or set expectedIPs")
    if spec.interface_name not in ("", ALL_INTERFACES) and not _INTERFACE.fullmatch(spec.interface_name):
        remedy = "letters, digits, _, . and -, 15 at most; or * for all interfaces"
        yield Problem("spec.interfaceName", spec.interface_name, "can't be an interface's name", remedy)
    yield from _repeated("spec.expectedIPs", spec.expected_ips)
    for index, address in enumerate(spec.expected_ips):
        if not _is_address(address):
            yield Problem(f"spec.expectedIPs[{index}]", address, "is not an address", "write 192.0.2.1 or 2001:db8::1")
    yield from _repeated("spec.profiles", spec.profiles)
    for index, name in enumerate(spec.profiles):
        yield from dns_name_problems(f"spec.profiles[{index}]", name)
    for index, port in enumerate(spec.ports):
        yield from _port_problems(f"spec.ports[{index}]", port)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _repeated(where: str, found: tuple[str, ...]) -> Iterator[Problem]:
    if len(set(found)) < len(found):
        yield Problem(where, list(found), "names one twice", "write each once")


def _port_problems(where: str, port: EndpointPort) -> Iterator[Problem]:
    yield from port_name_problems(f"{where}.name", port.name)
    try:
        has_ports = protocol_number(port.protocol) in _WITH_PORTS
    except ValueError:
        has_ports = False
    if not has_ports:
        yield Problem(f"{where}.protocol", port.protocol, "is no protocol with ports", "write TCP, UDP or SCTP")
    if not 1 <= port.port <= 65535:
        yield Problem(f"{where}.port", port.port, "is no port", "write 1 to 65535")


KIND = Kind(
    name="HostEndpoint", group="projectcalico.org", version="v3", plural="hostendpoints", type=HostEndpoint,
    problems=problems, short_names=("hep", "heps"),
    definition=Definition(
        short_names=("hep", "heps"),
        columns=(
            Column("Node", ".spec.node", description="The node whose interface this is"),
            Column("Interface", ".spec.interfaceName", description="The interface; * is all of them"),
            Column("IPs", ".spec.expectedIPs", description="Addresses that it is expected to have", wide=True),
        ),
        constraints=(
            Constraint(path="spec.node", max_length=dns_names.MOST_CHARACTERS, pattern=f"^({dns_names.PATTERN})?$"),
            Constraint(path="spec.interfaceName", pattern=rf"^(\*|{_INTERFACE.pattern})?$"),
            Constraint(path="spec.expectedIPs", list_type="set"),
            Constraint(path="spec.expectedIPs[]", pattern="^[0-9A-Fa-f.:]+$"),
            Constraint(path="spec.profiles", list_type="set"),
            Constraint(
                path="spec.profiles[]", max_length=dns_names.MOST_CHARACTERS, pattern=f"^{dns_names.PATTERN}$"
            ),
            Constraint(path="spec.ports", max_items=1024),
            Constraint(path="spec.ports[].protocol", max_length=10),
            Constraint(path="spec.ports[].name", max_length=15, pattern="^[a-z0-9]+(-[a-z0-9]+)*$"),
            Constraint(path="spec.ports[].port", minimum=1, maximum=65535),
        ),
        validations=(
            Validation(
                path="spec", rule="has(self.node) && self.node != ''", field=".node",
                message="name the node whose interface this is", reason="FieldValueRequired",
            ),
            Validation(
                path="spec",
                rule="(has(self.interfaceName) && self.interfaceName != '') ||"
                " (has(self.expectedIPs) && size(self.expectedIPs) > 0)",
                field=".interfaceName", message="no interface is meant: set interfaceName or expectedIPs",
            ),
            Validation(
                path="spec.ports[]",
                rule="string(self.protocol) in ['TCP', 'UDP', 'SCTP', '6', '17', '132']",
                field=".protocol", message="only TCP, UDP and SCTP have ports",
            ),
        ),
    ),
)  # fmt: skip
