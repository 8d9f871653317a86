"""Our own image, as a node's runtime sees it: small, complete, and content with a root that it can't write to."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from image.__main__ import NAME
from tests.cluster.cluster import Cluster

MOST_UNPACKED = 150e6
MANIFEST = f"""
apiVersion: v1
kind: Pod
metadata: {{name: image}}
spec:
  hostNetwork: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: install
    image: {NAME}
    imagePullPolicy: Never
    args: [install-cni, /host/opt/cni/bin]
    securityContext: &locked {{readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
    volumeMounts: [{{name: plugins, mountPath: /host/opt/cni/bin}}]
  containers:
  - name: calipy
    image: {NAME}
    imagePullPolicy: Never
    command: [/bin/sh, -c, "sleep 100000"]
    securityContext: *locked
  volumes: [{{name: plugins, hostPath: {{path: /opt/cni/bin}}}}]
"""
ALL_MODULES = """
import importlib, pkgutil, sys
import calipy, exabgp.application.server
names = [module.name for module in pkgutil.walk_packages(calipy.__path__, "calipy.")]
for name in names:
    if not name.endswith("__main__") and not name.startswith("calipy.lab"):
        importlib.import_module(name)
files = {name: module.__spec__.cached for name, module in sys.modules.items() if name.startswith("calipy.")}
import os
missing = [name for name, cached in files.items() if not os.path.exists(cached)]
print(len(files), missing)
"""


@pytest.fixture(scope="module")
def node(cluster_with: Callable[..., Cluster], calipy_image: Path) -> Cluster:
    """A node on which a pod of our image runs."""
    cluster = cluster_with(nodes=1, images=(calipy_image,))
    asyncio.run(_run(cluster))
    return cluster


async def _run(cluster: Cluster) -> None:
    await cluster.apply(MANIFEST)
    await cluster.wait("pod/image", "condition=Ready")


def test_it_is_small(calipy_image: Path) -> None:
    with tarfile.open(calipy_image) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        layers = json.load(member)[0]["Layers"]
        unpacked = 0
        for layer in layers:
            with tarfile.open(fileobj=archive.extractfile(layer), mode="r|gz") as files:
                unpacked += sum(entry.size for entry in files)
    assert 50e6 < unpacked < MOST_UNPACKED


async def test_all_of_us_is_in_it_compiled(node: Cluster) -> None:
    count, _, missing = (await node.exec("image", "python3", "-c", ALL_MODULES)).text.partition(" ")
    assert int(count) > 100
    assert missing.strip() == "[]"


async def test_its_init_container_installs_the_forwarder(node: Cluster) -> None:
    done = await node.machines["n1"].run("/opt/cni/bin/calipy-cni", input=b"{}", check=False)
    assert "CNI_COMMAND" in done.text
    assert json.loads(done.text)["code"]


async def test_it_has_the_shell_of_probes(node: Cluster) -> None:
    script = "read -r now rest </proc/uptime && [ ${now%.*} -gt 0 ] && echo well"
    assert (await node.exec("image", "/bin/sh", "-c", script)).text == "well\n"
