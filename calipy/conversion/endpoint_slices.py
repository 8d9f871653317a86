"""EndpointSlice -> members of the sets of its service. Whether an endpoint is ready plays no part, as in Calico: the
policy of a connection must not change because a probe fails."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from calipy.model.sets import endpoint_member
from calipy.resources.endpoint_slices import EndpointSlice
from calipy.resources.policy_rules import PROTOCOL_NUMBERS


def members(found: EndpointSlice, *, with_ports: bool) -> Iterator[str]:
    """Addresses, or each of them with each port; a port without a number is none. What is no address is left out."""
    ports = [(PROTOCOL_NUMBERS[port.protocol], port.port) for port in found.ports or () if port.port is not None]
    for endpoint in found.endpoints or ():
        for text in endpoint.addresses:
            address = _address(text)
            if address and with_ports:
                for protocol, port in ports:
                    yield endpoint_member(address, protocol, port)
            elif address:
                yield address


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
