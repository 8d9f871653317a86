"""A gate from this host's loopback to the API server of a cluster, whose network this host has no link into.

    nsenter --net=... python -m tests.cluster.gate LISTENER PID HOST PORT

It takes connections on the socket LISTENER, a descriptor that it inherits, made in the host's network namespace, and
connects them to HOST:PORT in the namespace in which it was started. It ends when process PID does, so that it keeps
no cluster's network alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Final

from calipy.lab.executions import readable

_PIECE: Final = 1 << 16


async def keep(listener: socket.socket, pid: int, host: str, port: int) -> None:
    """Serves until process `pid` ends."""
    process = os.pidfd_open(pid)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                beyond, into = await asyncio.open_connection(host, port)
            except OSError as error:
                print(f"{host} port {port}: {error}", file=sys.stderr, flush=True)
                return
            with contextlib.closing(into):
                await asyncio.gather(_carry(reader, into), _carry(beyond, writer))

    async with await asyncio.start_server(serve, sock=listener):
        await readable(process)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end."""
    try:
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:  # either side may break off: then both hear of it
        writer.close()


def main() -> None:
    """Entry point."""
    descriptor, pid, host, port = sys.argv[1:]
    asyncio.run(keep(socket.socket(fileno=int(descriptor)), int(pid), host, int(port)))


if __name__ == "__main__":
    main()
