"""CNI ADD and DEL as a runtime execs them, against Debian's ptp + host-local on the same machine; IPv4 only."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import callers
from bench.nodes import Node, node
from bench.rows import Row, median, row

_COUNT, _AT_ONCE = 90, 30
_OURS = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calipy-cni"}
_PEER = {
    "cniVersion": "1.0.0",
    "name": "peer",
    "type": "ptp",
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/peer",
    },
}
_AIMS = {("ADD", 1): "<= 0.4", ("ADD", _AT_ONCE): "<= 0.2", ("DEL", 1): "<= 0.7", ("DEL", _AT_ONCE): "<= 0.3"}


def rows() -> Iterator[Row]:
    """One after another, then many at once."""
    yield from asyncio.run(_measure())


async def _measure() -> list[Row]:
    found = []
    async with node() as place:
        for number in range(_COUNT):
            await place.machine.make_netns(f"b{number}")
        for at_once in (1, _AT_ONCE):
            # The peer goes first and last, so that a machine that slows down or wakes up favours neither.
            peer = await _calls(place, "/usr/lib/cni/ptp", _PEER, at_once)
            ours = await _calls(place, "/opt/cni/bin/calipy-cni", _OURS, at_once)
            again = await _calls(place, "/usr/lib/cni/ptp", _PEER, at_once)
            for verb in ("ADD", "DEL"):
                how = "one after another" if at_once == 1 else f"{at_once} at once"
                theirs = median([*peer[verb], *again[verb]])
                aim = _AIMS[verb, at_once]
                found.append(row(f"CNI {verb}, {how}", "ms", median(ours[verb]), theirs, "ptp + host-local", aim))
    return found


async def _calls(place: Node, plugin: str, configuration: object, at_once: int) -> dict[str, list[float]]:
    job = {
        "argv": [plugin],
        "stdin": json.dumps(configuration),
        "env": {"CNI_PATH": "/usr/lib/cni:/opt/cni/bin"},
        "verbs": ["ADD", "DEL"],
        "count": _COUNT,
        "at_once": at_once,
        "prefix": "b",
    }
    argv = (sys.executable, "-S", "-E", str(Path(callers.__file__)))
    done = await place.machine.run(*argv, input=json.dumps(job).encode(), timeout_s=300)
    answer: dict[str, list[float]] = json.loads(done.stdout)
    return answer
