"""Connection tracking: the flows of an address are forgotten before the address changes hands."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from calipy.netlink import ctnetlink
from calipy.netlink.messages import Message
from calipy.netlink.socket import NetlinkSocket


class ConntrackError(OSError):
    """The kernel did not delete the flows of an address; the address must not be used again."""


class Conntrack:
    """Deletes flows by address."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket

    def flush(self, addresses: Iterable[str]) -> None:
        """Deletes every flow from or to one of `addresses`, before or after translation. Raises ConntrackError."""
        for address in addresses:
            messages = ctnetlink.delete_flows(address) if ":" not in address else self._flows_v6(address)
            for refusal in self._socket.request(list(messages)):
                if refusal.errno != errno.ENOENT:
                    raise ConntrackError(refusal.errno, f"conntrack: flows of {address}: {refusal.text}")

    def _flows_v6(self, address: str) -> Iterator[Message]:
        for body in self._socket.dump(ctnetlink.dump_flows(6)):
            if ctnetlink.mentions(body, address):
                yield ctnetlink.delete_flow(body)
