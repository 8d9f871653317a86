"""Links deleted: heard when they are gone, while the kernel still tidies up behind them.

The kernel tells of a link's end (RTM_DELLINK) when the link is down, out of every list, and no packet is under way on
it any more: a millisecond. The request itself returns only when the last reference to it is gone, after two RCU grace
periods: 12 to 25 ms (Linux 6.18). Who asked goes on with the former; a thread of a few waits for the latter, for a
refusal is told there. Links that wait for a free thread at the same time go together, as a group.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from calipy.cni.errors import CniError, Code
from calipy.netlink import rtnetlink as rt
from calipy.netlink.messages import Overrun
from calipy.netlink.socket import ROUTE, NetlinkSocket

AT_ONCE = 8
"""So many deletions may be under way: each waits in a thread, and hardly computes."""
DOOMED_GROUP = 0x63616C69
"""The link group (IFLA_GROUP) of those that the first socket deletes together; the others' follow."""
_INDEX = struct.Struct("=4xi")
"""A link's index in struct ifinfomsg (rtnetlink(7))."""


class _Deleter(Struct, frozen=True, gc=False):
    """A socket for one deletion at a time, and the group of its links."""

    socket: NetlinkSocket
    group: int


class Deletions:
    """Deletes links of the network namespace in which this is made."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "links")
        self._all = tuple(_Deleter(NetlinkSocket.open(ROUTE), DOOMED_GROUP + number) for number in range(AT_ONCE))
        self._free = list(reversed(self._all))
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._leaving: dict[int, asyncio.Future[None]] = {}
        """Asked for, and neither told of nor refused yet."""
        self._news: NetlinkSocket | None = None
        """Listens while anything is on its way out."""

    @property
    def ports(self) -> frozenset[int]:
        """The netlink ports that the kernel names as the origin of what is done here."""
        return frozenset(deleter.socket.port for deleter in self._all)

    @property
    def requests_sent(self) -> int:
        """How many there were."""
        return sum(deleter.socket.requests_sent for deleter in self._all)

    def close(self) -> None:
        """Waits for what is under way, and lets go of threads and sockets."""
        self._threads.shutdown()
        for socket in (*(deleter.socket for deleter in self._all), self._news):
            if socket is not None:
                socket.close()

    async def remove(self, index: int) -> None:
        """Returns when a link is gone; fine where it is so already. Raises CniError 102."""
        gone = self._leaving.get(index) or self._waiting.get(index)
        if gone is None:
            loop = asyncio.get_running_loop()
            gone = self._waiting[index] = loop.create_future()
            loop.call_soon(self._begin)  # not at once: others may ask in this same turn
        await asyncio.shield(gone)

    def _begin(self) -> None:
        if not self._waiting or not self._free:
            return
        loop = asyncio.get_running_loop()
        doomed, self._waiting = self._waiting, {}
        self._leaving |= doomed
        if self._news is None:
            self._news = NetlinkSocket.open(ROUTE, (rt.GROUP_LINK,))
            loop.add_reader(self._news.fileno(), self._hear)
        self._threads.submit(self._delete, loop, self._free.pop(), tuple(doomed))

    def _hear(self) -> None:
        assert self._news is not None
        try:
            packets = self._news.receive()
        except Overrun:  # then each is over when its request returns
            self._news.discard()
            return
        for packet in packets:
            if packet.kind == rt.DELETE_LINK:
                gone = self._leaving.pop(_INDEX.unpack_from(packet.body)[0], None)
                if gone is not None:
                    gone.set_result(None)

    def _delete(self, loop: asyncio.AbstractEventLoop, deleter: _Deleter, doomed: Sequence[int]) -> None:
        """On a thread."""
        try:
            refusal = _refusal(deleter, doomed)
        except OSError as error:
            refusal = str(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: so ends the agent
            loop.call_soon_threadsafe(self._end, deleter, doomed, refusal)

    def _end(self, deleter: _Deleter, doomed: Sequence[int], refusal: str) -> None:
        self._free.append(deleter)
        for index in doomed:
            gone = self._leaving.pop(index, None)
            if gone is not None:
                _settle(gone, refusal)
        if not self._leaving and self._news is not None:
            asyncio.get_running_loop().remove_reader(self._news.fileno())
            self._news.close()
            self._news = None
        self._begin()


def _settle(gone: asyncio.Future[None], refusal: str) -> None:
    if not refusal:
        gone.set_result(None)
        return
    gone.set_exception(CniError(Code.KERNEL_REFUSED, f"links can't be deleted: {refusal}", "try again"))
    gone.exception()  # whoever waited for it may have gone


def _refusal(deleter: _Deleter, indices: Sequence[int]) -> str:
    """Deletes links; the kernel's refusal, or nothing."""
    socket = deleter.socket
    if len(indices) == 1:
        refusals = socket.request([rt.delete_link(indices[0])])
    else:
        grouped = socket.request([rt.set_link(index, group=deleter.group) for index in indices])
        last = socket.request([rt.delete_group(deleter.group)]) if len(grouped) < len(indices) else ()
        refusals = (*grouped, *last)
    return next((refusal.text for refusal in refusals if refusal.errno != errno.ENODEV), "")
