"""Host names for aiohttp, looked up by a process of its own: aiohttp's would take a thread."""

from __future__ import annotations

import os
import socket
import sys

from aiohttp.abc import AbstractResolver, ResolveResult

from calipy import children

_CODE = """
import socket, sys
try:
    for family, *_, address in socket.getaddrinfo(sys.argv[1], None, int(sys.argv[2]), socket.SOCK_STREAM):
        print(int(family), address[0])
except (OSError, UnicodeError) as error:
    sys.exit(getattr(error, "strerror", "") or str(error))
"""
_LONGEST_S = 10.0


class Resolver(AbstractResolver):
    """The system's answers."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError where there is no answer."""
        argv = (sys.executable, "-I", "-S", "-c", _CODE, host, str(int(family)))
        try:
            ended = await children.run(argv, timeout_s=_LONGEST_S)
        except TimeoutError:
            raise OSError(None, f"{host}: no name server has told its address within {_LONGEST_S:g} s") from None
        said = os.fsdecode(ended.output).strip()
        if ended.status:
            raise OSError(None, f"{host}: its address can't be looked up: {said}")
        found = (line.split(" ", 1) for line in said.splitlines())
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=int(number), proto=0, flags=socket.AI_NUMERICHOST
            )
            for number, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""
