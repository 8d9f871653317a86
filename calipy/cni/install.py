"""What a container runtime finds on this node: the forwarder in its plug-in folder, and the network's conflist."""

from __future__ import annotations

from pathlib import Path

import msgspec

from calipy import files

FORWARDER = "calipy-cni"
BUILT = (Path(__file__).parent / "forwarder" / FORWARDER, Path(__file__).parents[2] / "build" / FORWARDER)
"""Where the built forwarder may lie: with an installed package, or in a checkout."""
NETWORK = "k8s-pod-network"
"""Calico's name, so that IPAM handles are the same."""


def install_forwarder(folder: str, forwarder: str = "") -> str:
    """Copies the forwarder into `folder`: a runtime that executes it meanwhile has the old or the new one. Gives the
    path written. Raises OSError; FileNotFoundError says how to build it."""
    places = (Path(forwarder),) if forwarder else BUILT
    source = next((path for path in places if path.is_file()), None)
    if source is None:
        raise FileNotFoundError(f"{places[-1]}: no forwarder there; build it (make setup) or name one with --forwarder")
    place = Path(folder) / FORWARDER
    files.replace(place, source.read_bytes(), mode=0o755)
    return str(place)


def conflist(mtu: int = 0) -> bytes:
    """The network's configuration list; its file's mode is 0600. `mtu` 0 leaves it to the agent.

    `cniVersion` is for runtimes that know no other key (containerd 1.6), `cniVersions` for those that choose.
    """
    plugin: dict[str, object] = {
        "type": FORWARDER,
        "capabilities": {"portMappings": True, "io.kubernetes.cri.pod-annotations": True},
    }
    if mtu:
        plugin["mtu"] = mtu
    document = {
        "name": NETWORK,
        "cniVersion": "0.4.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "plugins": [plugin],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
