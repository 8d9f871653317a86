"""A link's transmit checksum offload (ethtool(8) tx), which the VXLAN driver of old kernels got wrong."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import socket
import struct

from calipy.netlink.socket import inside

_SIOCETHTOOL = 0x8946
_GET_TRANSMIT_CHECKSUM, _SET_TRANSMIT_CHECKSUM = 0x16, 0x17
_VALUE = struct.Struct("=II")


class Offloads:
    """The offload of any link of one network namespace, by ethtool's ioctl (linux/ethtool.h)."""

    def __init__(self, namespace: int | None = None) -> None:
        with inside(namespace) if namespace is not None else contextlib.nullcontext():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Lets go of the socket."""
        self._socket.close()

    def get(self, link: str) -> bool:
        """True if the link leaves checksums to its driver; also where it can't say. Raises OSError."""
        try:
            return bool(self._ask(link, _GET_TRANSMIT_CHECKSUM, 0))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return True
            raise

    def set(self, link: str, on: bool) -> None:
        """Turns it on or off. Raises OSError."""
        self._ask(link, _SET_TRANSMIT_CHECKSUM, int(on))

    def _ask(self, link: str, command: int, value: int) -> int:
        buffer = ctypes.create_string_buffer(_VALUE.pack(command, value), _VALUE.size)
        request = struct.pack("16sP", link.encode(), ctypes.addressof(buffer)).ljust(40, b"\0")
        fcntl.ioctl(self._socket, _SIOCETHTOOL, request)
        return int(_VALUE.unpack(buffer.raw)[1])
