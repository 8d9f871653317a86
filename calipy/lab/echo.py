"""Sends back what it receives, on TCP and UDP ports: `python -S -E echo.py TCP/80 UDP/53`. Prints LISTENS once it does.
Standard library only; one of it runs in each pod that listens."""

from __future__ import annotations

import socket
import sys
import threading

LISTENS = "listens"
_MOST = 65536


def _listener(protocol: str, port: int) -> socket.socket:
    """A socket on all addresses of both families, or of IPv4 where the pod has no IPv6."""
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    try:
        found = socket.socket(socket.AF_INET6, kind)
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        place = "::"
    except OSError:
        found, place = socket.socket(socket.AF_INET, kind), "0.0.0.0"
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((place, port))
    if protocol == "TCP":
        found.listen(128)
    return found


def _serve_udp(listener: socket.socket) -> None:
    while True:
        data, sender = listener.recvfrom(_MOST)
        try:
            listener.sendto(data, sender)
        except OSError as error:
            print(f"UDP: {sender[0]}: {error}", file=sys.stderr, flush=True)


def _serve_tcp(listener: socket.socket) -> None:
    while True:
        connection, sender = listener.accept()
        threading.Thread(target=_serve_connection, args=(connection, sender[0]), daemon=True).start()


def _serve_connection(connection: socket.socket, sender: str) -> None:
    with connection:
        try:
            while data := connection.recv(_MOST):
                connection.sendall(data)
        except OSError as error:
            print(f"TCP: {sender}: {error}", file=sys.stderr, flush=True)


def main() -> None:
    """Entry point; without end."""
    wanted = [argument.split("/") for argument in sys.argv[1:]]
    listeners = [(protocol, _listener(protocol, int(port))) for protocol, port in wanted]
    threads = [
        threading.Thread(target=_serve_tcp if protocol == "TCP" else _serve_udp, args=(listener,))
        for protocol, listener in listeners
    ]
    for thread in threads:
        thread.start()
    print(LISTENS, flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
