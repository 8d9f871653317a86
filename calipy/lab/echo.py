"""Sends back what it receives: `python -S -E -m calipy.lab.echo TCP/80 UDP/53 SCTP/80`. Prints LISTENS once it does.
Standard library only; one of it runs in each pod that listens.

Where the kernel has no SCTP, an association is begun (INIT ACK), or refused on another port (ABORT), and no more.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence, Set

from calipy.lab import sctp

LISTENS = "listens on"
"""The beginning of the line; the ports follow."""
_MOST = 65536


def _listener(protocol: str, port: int) -> socket.socket:
    """A socket on all addresses of both families, or of IPv4 where the pod has no IPv6."""
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    number = sctp.PROTOCOL if protocol == "SCTP" else 0
    try:
        found = socket.socket(socket.AF_INET6, kind, number)
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        place = "::"
    except OSError:
        found, place = socket.socket(socket.AF_INET, kind, number), "0.0.0.0"
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((place, port))
    if protocol != "UDP":
        found.listen(128)
    return found


def _serve_datagrams(listener: socket.socket) -> None:
    while True:
        data, sender = listener.recvfrom(_MOST)
        try:
            listener.sendto(data, sender)
        except OSError as error:
            print(f"UDP: {sender[0]}: {error}", file=sys.stderr, flush=True)


def _serve_streams(listener: socket.socket) -> None:
    while True:
        connection, sender = listener.accept()
        threading.Thread(target=_serve_connection, args=(connection, sender[0]), daemon=True).start()


def _serve_connection(connection: socket.socket, sender: str) -> None:
    with connection:
        try:
            while data := connection.recv(_MOST):
                connection.sendall(data)
        except OSError as error:
            print(f"{sender}: {error}", file=sys.stderr, flush=True)


def _raw_sctp() -> Iterator[socket.socket]:
    """A raw socket for each family that the pod has."""
    yield socket.socket(socket.AF_INET, socket.SOCK_RAW, sctp.PROTOCOL)
    try:
        yield socket.socket(socket.AF_INET6, socket.SOCK_RAW, sctp.PROTOCOL)
    except OSError:
        return


def _serve_raw_sctp(listener: socket.socket, ports: Set[int]) -> None:
    while True:
        data, sender = listener.recvfrom(_MOST)
        if listener.family == socket.AF_INET:
            data = data[4 * (data[0] & 0x0F) :]  # raw IPv4 sockets see the IP header, raw IPv6 ones don't (raw(7))
        try:
            packet = sctp.answer(sctp.decode(data), ports, int.from_bytes(os.urandom(4), "big") or 1)
            if packet is not None:
                listener.sendto(sctp.encode(packet), (sender[0], 0, *sender[2:]))
        except (sctp.Malformed, OSError) as error:
            print(f"SCTP: {sender[0]}: {error}", file=sys.stderr, flush=True)


Work = tuple[Callable[..., None], tuple[object, ...]]


def _works(wanted: Sequence[tuple[str, int]]) -> Iterator[Work]:
    """What is to be served, its sockets open: functions and their arguments."""
    raw = frozenset(port for protocol, port in wanted if protocol == "SCTP" and not sctp.kernel_speaks())
    for protocol, port in wanted:
        if protocol == "UDP":
            yield _serve_datagrams, (_listener(protocol, port),)
        elif protocol == "TCP" or not raw:
            yield _serve_streams, (_listener(protocol, port),)
    for listener in _raw_sctp() if raw else ():
        yield _serve_raw_sctp, (listener, raw)


def main() -> None:
    """Entry point; without end."""
    wanted = [(protocol, int(port)) for protocol, _, port in (argument.partition("/") for argument in sys.argv[1:])]
    threads = [threading.Thread(target=serve, args=arguments) for serve, arguments in list(_works(wanted))]
    for thread in threads:
        thread.start()
    print(LISTENS, *sys.argv[1:], flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
