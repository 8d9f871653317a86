"""A new pod's first packet, timed: run inside a lab machine, one JSON job on standard input, one JSON list on standard
output: milliseconds from the return of each ADD to the first datagram that came back from `echo` (address and port).

    {"plugin": "...", "stdin": "...", "count": 20, "prefix": "b", "echo": ["10.244.1.2", 7]}

Network namespaces `<prefix>0`, `<prefix>1`, ... are there already.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import sys
import tempfile
import time

_CLONE_NEWNET = 0x40000000
_PATIENCE_S, _AGAIN_S = 10.0, 0.0005


def main() -> None:
    """Entry point."""
    job = json.load(sys.stdin)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    took = []
    with tempfile.TemporaryFile() as stdin:
        stdin.write(job["stdin"].encode())
        stdin.flush()
        for number in range(job["count"]):
            name = f"{job['prefix']}{number}"
            probe = _socket_in(f"/run/netns/{name}", own)
            _add(job["plugin"], name, stdin.fileno())
            took.append(_first(probe, tuple(job["echo"])))
            probe.close()
    json.dump(took, sys.stdout)


def _socket_in(namespace: str, own: int) -> socket.socket:
    """A socket lives in the namespace in which it was made."""
    libc = ctypes.CDLL(None)
    there = os.open(namespace, os.O_RDONLY)
    assert libc.setns(there, _CLONE_NEWNET) == 0
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert libc.setns(own, _CLONE_NEWNET) == 0
    os.close(there)
    found.setblocking(False)
    return found


def _add(plugin: str, name: str, stdin: int) -> None:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": name,
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": os.path.dirname(plugin),
    }
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{stdin}", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    _, status = os.waitpid(os.posix_spawn(plugin, [plugin], environment, file_actions=actions), 0)
    if status:
        raise SystemExit(f"{plugin} ADD: status {os.waitstatus_to_exitcode(status)}")


def _first(probe: socket.socket, echo: tuple[str, int]) -> float:
    """Milliseconds until a datagram is back; one is sent every half millisecond."""
    began = time.perf_counter()
    while time.perf_counter() - began < _PATIENCE_S:
        try:
            probe.sendto(b"?", echo)
        except OSError:
            pass  # no route yet: tried again
        if select.select([probe], [], [], _AGAIN_S)[0]:
            return (time.perf_counter() - began) * 1e3
    raise SystemExit(f"nothing comes back from {echo[0]} port {echo[1]}")


if __name__ == "__main__":
    main()
