"""A container runtime's exec of a plug-in, timed: run inside a lab machine, one JSON job on standard input, one JSON
answer on standard output. It starts plug-ins as libcni does (fork, exec, standard input, wait) and nothing else.

    {"argv": [...], "stdin": "...", "env": {...}, "verbs": ["ADD", "DEL"], "count": 100, "at_once": 1, "prefix": "b",
     "arguments": "K8S_POD_NAME={name};..."}
    {"ADD": [milliseconds, ...], "DEL": [...], "ADD wall": seconds for all, ...}

Network namespaces `<prefix>0`, `<prefix>1`, ... are there already.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any


def main() -> None:
    """Entry point."""
    job = json.load(sys.stdin)
    answer: dict[str, Any] = {}
    with tempfile.TemporaryFile() as stdin:
        stdin.write(job["stdin"].encode())
        stdin.flush()
        for verb in job["verbs"]:
            began = time.perf_counter()
            answer[verb] = _rounds(job, verb, stdin.fileno())
            answer[f"{verb} wall"] = time.perf_counter() - began
    json.dump(answer, sys.stdout)


def _rounds(job: dict[str, Any], verb: str, stdin: int) -> list[float]:
    took: list[float] = []
    for first in range(0, job["count"], job["at_once"]):
        running: dict[int, float] = {}
        for number in range(first, min(first + job["at_once"], job["count"])):
            running[_spawn(job, verb, number, stdin)] = time.perf_counter()
        while running:
            pid, status = os.wait()
            took.append((time.perf_counter() - running.pop(pid)) * 1e3)
            if status:
                raise SystemExit(f"{job['argv'][0]} {verb}: status {os.waitstatus_to_exitcode(status)}")
    return took


def _spawn(job: dict[str, Any], verb: str, number: int, stdin: int) -> int:
    name = f"{job['prefix']}{number}"
    environment = {
        **job["env"],
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": job.get("arguments", "").format(name=name),
    }
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{stdin}", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    return os.posix_spawn(job["argv"][0], job["argv"], environment, file_actions=actions)


if __name__ == "__main__":
    main()
