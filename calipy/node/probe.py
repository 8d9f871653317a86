"""`calipy health`: is this node's agent ready, is it alive, is the BGP sidecar? For kubelet's probes, so it imports
next to nothing: 20 ms of CPU, where the other commands need 60.

Exit status 0 if all that was asked for is so, 1 if not, 2 for wrong usage. What isn't so is told on stdout.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

TIMEOUT_S = 5.0
USAGE = """Usage: calipy health [--felix-ready] [--felix-live] [--bgp-ready] [--bgp-live]

  Is this node's agent well? The first three ask it on its health port; without any, the first two are asked for.

  --felix-ready  it programs what the cluster wants, and can attach pods
  --felix-live   none of its loops is stuck
  --bgp-ready    BGP is as it should be
  --bgp-live     the BGP sidecar gives signs of life

  Environment: FELIX_HEALTHHOST, FELIX_HEALTHPORT, CALIPY_BGP_DIR, as the agent's.
"""
_QUESTIONS = {
    "--felix-ready": "/readiness?without=BGP",
    "--felix-live": "/liveness",
    "--bgp-ready": "/readiness?only=BGP",
}
_SIGN = "bgp-alive"


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """The command."""
    if "--help" in arguments:
        print(USAGE, end="")
        return 0
    unknown = [argument for argument in arguments if argument not in {*_QUESTIONS, "--bgp-live"}]
    if unknown:
        print(f"{USAGE}\nError: no such option: {unknown[0]}", file=sys.stderr)
        return 2
    wrong = list(problems(arguments or ("--felix-ready", "--felix-live"), environment))
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


def problems(asked: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """What is not as asked."""
    for option in asked:
        what = option.removeprefix("--").replace("-", " is not ")
        if option in _QUESTIONS:
            said = _ask(_QUESTIONS[option], environment)
        else:
            said = _silent(environment.get("CALIPY_BGP_DIR") or environment.get("CALIPY_RUN_DIR") or "/run/calipy")
        if said:
            yield f"{what}: {said}"


def _ask(path: str, environment: Mapping[str, str]) -> str:
    """What the agent's health port says of it; empty if all is well."""
    host, port = environment.get("FELIX_HEALTHHOST") or "localhost", environment.get("FELIX_HEALTHPORT") or "9099"
    try:
        address = ({"localhost": "127.0.0.1"}.get(host, host), int(port))
        with socket.create_connection(address, TIMEOUT_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode(errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        remedy = "is the agent running, with FELIX_HEALTHENABLED=true and that FELIX_HEALTHHOST and FELIX_HEALTHPORT?"
        return f"no answer from {host}, port {port}: {reason}; {remedy}"
    head, _, body = answer.partition("\r\n\r\n")
    status = head.partition("\r\n")[0].partition(" ")[2]
    return "" if status[:3] in ("200", "204") else f"the agent answers {status}\n{body.rstrip()}".rstrip()


def _silent(folder: str) -> str:
    """Why the sidecar is taken for stuck; empty while it isn't, and before it was ever started (`bgp.sidecar`)."""
    path = os.path.join(folder, _SIGN)
    try:
        with open(path, encoding="ascii") as file:
            at_s, limit_s = map(float, file.read().split()[:2])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"{path} can't be read: {error}"
    silent_s = time.clock_gettime(time.CLOCK_BOOTTIME) - at_s
    return f"no sign of life in {path} for {silent_s:.0f} s (limit {limit_s:g} s)" if silent_s > limit_s else ""
