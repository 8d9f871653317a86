"""The netlink socket. Requests are synchronous: the kernel has dealt with a message when send() returns."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Iterator, Sequence

from calipy.netlink.messages import (
    DONE,
    DUMP,
    DUMP_INTERRUPTED,
    ERROR,
    MULTI,
    Interrupted,
    Message,
    Overrun,
    Packet,
    Refusal,
    Series,
    numbers,
    pack,
    refusal_of,
    unpack,
)

ROUTE, NETFILTER = 0, 12
_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 1, 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SEND_BUFFER = 64 << 20
_RECEIVE_BUFFER = 8 << 20
_CHUNK = 500
"""Messages in one send: their errors fit the receive buffer."""
_RECEIVE = 1 << 20
_DUMP_ATTEMPTS = 10
_GET_ROUTE = 26
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """The calling thread in the network namespace of a descriptor, and back. Nothing may be awaited inside."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            yield
        finally:
            _enter(own)
    finally:
        os.close(own)


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """The calling thread in a new, empty network namespace, which goes when nothing is open in it. Nothing may be
    awaited inside. Raises OSError."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"unshare: {os.strerror(number)}")
        try:
            yield
        finally:
            _enter(own)
    finally:
        os.close(own)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


class NetlinkSocket:
    """One socket in one network namespace, where it stays."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._sequence = 1
        self.port: int = raw.getsockname()[0]
        """Its netlink port: notifications that its own requests cause carry it."""
        self.requests_sent = 0
        self.messages_sent = 0
        self.dumps = 0

    @classmethod
    def open(cls, protocol: int, groups: Sequence[int] = (), namespace: int | None = None) -> NetlinkSocket:
        """A socket of a netlink protocol, member of multicast groups, in this or another network namespace."""
        with inside(namespace) if namespace is not None else contextlib.nullcontext():
            raw = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
            raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            raw.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            raw.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            if protocol == ROUTE:
                raw.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
            raw.bind((0, 0))
            for group in groups:
                raw.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except BaseException:
            raw.close()
            raise
        return cls(raw)

    def request(self, messages: Sequence[Message]) -> tuple[Refusal, ...]:
        """Sends messages, each for itself; the refusals name them by their place in `messages`."""
        refusals: list[Refusal] = []
        for start in range(0, len(messages), _CHUNK):
            chunk = messages[start : start + _CHUNK]
            first = self._number(len(chunk))
            self._send(pack(chunk, first), len(chunk))
            for packet in self._answers():
                if packet.kind == ERROR and 0 <= packet.sequence - first < len(chunk):
                    refusal = refusal_of(packet, start + packet.sequence - first)
                    if refusal is not None:
                        refusals.append(refusal)
        return tuple(refusals)

    def batch(self, messages: Sequence[Message | Series]) -> tuple[Refusal, ...]:
        """Sends nf_tables messages, batch begin and end among them, as one transaction. A refusal's index is the
        message's place, where a series takes a place for each of its objects; -1 where the transaction as a whole was
        refused."""
        count = numbers(messages)
        first = self._number(count)
        self._send(pack(messages, first), count)
        refusals: list[Refusal] = []
        for packet in self._answers():
            if packet.kind == ERROR:
                index = packet.sequence - first
                inner = 0 < index < count - 1
                refusal = refusal_of(packet, index if inner else -1)
                if refusal is not None:
                    refusals.append(refusal)
        return tuple(refusals)

    def dump(self, message: Message) -> list[memoryview]:
        """The bodies of a dump's answers, of one consistent state. Raises OSError where the kernel refuses."""
        bodies: list[memoryview] = []
        for step in self.dump_slices(message):
            bodies = step or bodies
        return bodies

    def dump_slices(self, message: Message) -> Iterator[list[memoryview] | None]:
        """The same bit by bit: None after each datagram, at last the bodies. The socket is busy until then."""
        for _ in range(_DUMP_ATTEMPTS):
            try:
                yield from self._dump(message, [])
                return
            except Interrupted:
                continue
        raise OSError(errno.EAGAIN, f"netlink dump {message.kind}: interrupted {_DUMP_ATTEMPTS} times by changes")

    def stream(self, message: Message) -> Iterator[list[memoryview]]:
        """The bodies of a dump's answers datagram by datagram, of a table that may change meanwhile and is too long to
        be held. The socket is busy until the end. Raises OSError where the kernel refuses."""
        held: list[memoryview] = []
        for step in self._dump(message, held):
            if step is None:
                yield held.copy()
                held.clear()
        yield held

    def get(self, message: Message) -> memoryview:
        """The body of the one answer to a request. Raises OSError where the kernel refuses."""
        sequence = self._number(1)
        self._send(pack([message], sequence), 1)
        for packet in self._answers():
            if packet.sequence == sequence:
                if packet.kind == ERROR:
                    refusal = refusal_of(packet, 0)
                    if refusal is not None:
                        raise refusal.error()
                else:
                    return packet.body
        raise OSError(errno.ENODATA, f"netlink request {message.kind}: no answer")

    def receive(self, most: int = 200) -> list[Packet]:
        """The notifications that wait, perhaps none, about `most` of them. Raises Overrun where some were lost."""
        packets: list[Packet] = []
        while True:
            if len(packets) >= most:
                return packets
            try:
                packets.extend(unpack(self._raw.recv(_RECEIVE, socket.MSG_DONTWAIT)))
            except BlockingIOError:
                return packets
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overrun from error
                raise

    def discard(self) -> None:
        """Throws away all notifications that wait. Until the queue is empty once, the kernel drops what is new after an
        overrun without saying so again."""
        while True:
            try:
                self._raw.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def fileno(self) -> int:
        """For the event loop."""
        return self._raw.fileno()

    def close(self) -> None:
        """Ends it. After deletions of nf_tables objects the kernel takes some 12 ms over this."""
        self._raw.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _number(self, count: int) -> int:
        """Reserves `count` sequence numbers."""
        if self._sequence + count > 0x7FFFFFFF:
            self._sequence = 1
        first = self._sequence
        self._sequence += count
        return first

    def _send(self, data: bytes, count: int) -> None:
        self.requests_sent += 1
        self.messages_sent += count
        self._raw.send(data)

    def _answers(self) -> Iterator[Packet]:
        while True:
            try:
                data = self._raw.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from unpack(data)

    def _dump(self, message: Message, bodies: list[memoryview]) -> Iterator[list[memoryview] | None]:
        self.dumps += 1
        sequence = self._number(1)
        self._send(pack([Message(message.kind, message.flags | DUMP, message.body)], sequence), 1)
        interrupted = False
        while True:
            for packet in unpack(self._raw.recv(_RECEIVE)):
                if packet.sequence != sequence:
                    continue
                interrupted = interrupted or bool(packet.flags & DUMP_INTERRUPTED)
                if packet.kind == ERROR or (packet.kind == DONE and len(packet.body) >= 4):
                    refusal = refusal_of(packet, 0)
                    if refusal is not None and not _is_no_table(message, refusal):
                        raise Interrupted if refusal.errno == errno.EINTR else refusal.error()
                if packet.kind == DONE or (packet.kind == ERROR) or not packet.flags & MULTI:
                    if interrupted:
                        raise Interrupted
                    yield bodies
                    return
                bodies.append(packet.body)
            yield None


def _is_no_table(message: Message, refusal: Refusal) -> bool:
    """The kernel makes a routing table with its first route, main too: until then a dump of it is refused (ENOENT)."""
    return message.kind == _GET_ROUTE and refusal.errno == errno.ENOENT
