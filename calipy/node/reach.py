"""From which of its addresses this host would send to a destination: the kernel is asked, once a name is looked up."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys

from calipy import children

_CODE = """
import socket, sys
try:
    print(socket.getaddrinfo(sys.argv[1], None, int(sys.argv[2]), socket.SOCK_DGRAM)[0][4][0])
except (OSError, UnicodeError) as error:
    sys.exit(getattr(error, "strerror", "") or str(error))
"""
RESOLVER = (sys.executable, "-I", "-S", "-c", _CODE)
"""Looks up a name, as this process would; name and address family follow. A process of its own, for a look-up waits for
name servers and can't be cancelled."""
_PORT = 80


async def source_towards(destination: str, family: int, look_up_most_s: float) -> str:
    """The address from which the kernel would send to `destination`, an address or a name; no packet is sent, but for
    the look-up of a name, which may take so long. Raises OSError, the reason in `strerror`."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    address = destination if _is_address(destination) else await _look_up(destination, kind, look_up_most_s)
    if ipaddress.ip_address(address).version != family:
        raise OSError(errno.EAFNOSUPPORT, f"{address} is no IPv{family} address")
    with socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        probe.connect((address, _PORT))
        return str(probe.getsockname()[0])


async def _look_up(name: str, kind: socket.AddressFamily, most_s: float) -> str:
    try:
        found = await children.run((*RESOLVER, name, str(int(kind))), timeout_s=most_s)
    except TimeoutError as error:
        reason = f"no name server has told its address within {most_s:g} s"
        raise OSError(errno.ETIMEDOUT, reason) from error
    said = os.fsdecode(found.output).strip()
    if not _is_address(said):
        raise OSError(errno.EHOSTUNREACH, f"its address can't be looked up: {said or f'status {found.status}'}")
    return said


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
