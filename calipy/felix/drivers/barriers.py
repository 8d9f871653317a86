"""The table `inet calipy-recheck`: drops the packets of connections that bear a mark, whichever side sends them.

It is there while policyRecheck is enabled, for every packet pays for it.
"""

from __future__ import annotations

import errno
import struct

from calipy.netlink import nf_tables as nft
from calipy.netlink.messages import Message
from calipy.netlink.socket import NetlinkSocket

TABLE = "calipy-recheck"
_CT_MARK = 3
"""NFT_CT_MARK."""
_NOT_EQUAL = 1
"""NFT_CMP_NEQ."""
_PRIORITY = -10
"""Before the rules of `inet calipy`, which accept what is established; after connection tracking."""
_HOOKS = ("input", "forward", "output")


class Barrier:
    """Writes and removes the table."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket

    @property
    def port(self) -> int:
        """The socket's netlink port."""
        return self._socket.port

    def close(self) -> None:
        """Lets go of the socket; the table stays."""
        self._socket.close()

    def raise_(self, mark: int) -> None:
        """Connections with one of these bits in their mark get nothing through from now on. Raises OSError."""
        host_order = struct.Struct("=I").pack
        marked = (
            nft.ct(_CT_MARK),
            nft.bitwise(host_order(mark), bytes(4)),
            nft.compare(bytes(4), _NOT_EQUAL),
            nft.counter(),
            nft.verdict(nft.DROP),
        )
        messages = [nft.table(TABLE), nft.delete_table(TABLE), nft.table(TABLE)]
        for name in _HOOKS:
            hook = nft.Hook(number=nft.HOOKS[name], priority=_PRIORITY)
            messages += [nft.chain(TABLE, name, hook), nft.rule(TABLE, name, marked)]
        self._commit(messages)

    @property
    def stands(self) -> bool:
        """True if the table is there."""
        return any(nft.parse_table(body).name == TABLE for body in self._socket.dump(nft.get_tables()))

    def lift(self) -> None:
        """Takes the table away. Raises OSError."""
        if self.stands:
            self._commit([nft.delete_table(TABLE)])

    def _commit(self, messages: list[Message]) -> None:
        for refusal in self._socket.batch(nft.batch(messages)):
            if refusal.errno != errno.ENOENT:
                raise OSError(refusal.errno, f"table inet {TABLE}: {refusal.text}")
