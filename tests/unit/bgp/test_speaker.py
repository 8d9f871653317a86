"""ExaBGP as we start it."""

from __future__ import annotations

import subprocess
import sys

_WATCHED = """
import runpy, sys
names = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
sys.addaudithook(lambda event, arguments: print("asked", arguments) if event in names else None)
module = sys.argv[1]
sys.argv = ["exabgp", "version"]
runpy.run_module(module, run_name="__main__")
"""


def test_it_asks_no_name_server():
    command = [sys.executable, "-c", _WATCHED, "calipy.bgp.speaker"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "5.0.15" in done.stdout
    assert "asked" not in done.stdout
