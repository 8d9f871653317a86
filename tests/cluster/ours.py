"""Our own network on the cluster, as a user brings it there: an image that nodes have, and `kubectl apply` twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from calipy.console.progress import Steps
from image import __main__ as image
from image.rootfs import CHECKOUT
from tests.cluster.cluster import Cluster

CRDS: Final = CHECKOUT / "crds"
VXLAN: Final = Path(__file__).parent / "manifests" / "calipy"
BGP: Final = CHECKOUT / "manifests"
_ARCHIVE: Final = CHECKOUT / "build" / "cluster-image.tar"
_ROLLOUT_S: Final = 120.0
_LAST_LINES: Final = 30


async def archive(steps: Steps) -> Path:
    """The image of this checkout, made where there is none or an older one. Raises ImageError."""
    made_s = _ARCHIVE.stat().st_mtime if _ARCHIVE.exists() else 0.0
    if any(path.stat().st_mtime > made_s for path in _sources()):
        _ARCHIVE.parent.mkdir(exist_ok=True)
        await image.make(_ARCHIVE, image.NAME, steps)
    return _ARCHIVE


def _sources() -> Iterator[Path]:
    """What the image is made of, but for packages of others."""
    yield from (CHECKOUT / "pyproject.toml", CHECKOUT / "build" / "calipy-cni")
    for folder in ("calipy", "image"):
        for place, _, names in os.walk(CHECKOUT / folder):
            yield from (Path(place, name) for name in names if not name.endswith(".pyc"))


async def install(cluster: Cluster, manifests: Path = VXLAN) -> None:
    """Applies definitions and manifests; waits until every node has an agent that is ready, and is Ready by it. Raises
    ClusterError."""
    await cluster.kubectl("apply", "-k", str(CRDS))
    await cluster.kubectl("apply", "-k", str(manifests))
    rollout = ("rollout", "status", "daemonset/calipy-node", f"--timeout={_ROLLOUT_S:g}s")
    await cluster.kubectl("-n", "kube-system", *rollout, timeout_s=_ROLLOUT_S + 10)
    await cluster.ready()


def logs(cluster: Cluster) -> dict[str, str]:
    """What the pods of the DaemonSet have said last: `n1 agent` -> lines."""
    found = {}
    for node in cluster.nodes:
        for log in sorted(cluster.disk(node, "/var/log/pods").glob("kube-system_calipy-node-*/*/*.log")):
            lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            found[f"{node} {log.parent.name} {log.stem}"] = "\n".join(lines)
    return found
