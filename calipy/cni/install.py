"""What a container runtime finds on this node: the forwarder in its plug-in folder, and the network's conflist."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

FORWARDER = "calipy-cni"
BUILT = (Path(__file__).parent / "forwarder" / FORWARDER, Path(__file__).parents[2] / "build" / FORWARDER)
"""Where the built forwarder may lie: with an installed package, or in a checkout."""
NETWORK = "k8s-pod-network"
"""Calico's name, so that IPAM handles are the same."""


def install_forwarder(folder: str, forwarder: str = "") -> str:
    """Copies the forwarder into `folder`, beside its place and then into it: a runtime that executes it meanwhile has
    the old one or the new one. Gives the path written. Raises OSError; FileNotFoundError says how to build it."""
    places = (Path(forwarder),) if forwarder else BUILT
    source = next((path for path in places if path.is_file()), None)
    if source is None:
        raise FileNotFoundError(f"{places[-1]}: no forwarder there; build it (make setup) or name one with --forwarder")
    place = Path(folder) / FORWARDER
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{FORWARDER}.{os.getpid()}")
    try:
        shutil.copyfile(source, new)
        new.chmod(0o755)
        _sync(new)
        os.replace(new, place)
    finally:
        new.unlink(missing_ok=True)
    return str(place)


def conflist(mtu: int = 0) -> bytes:
    """The network's configuration list. `mtu` 0 leaves it to the agent.

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


def write_conflist(path: Path, mtu: int = 0) -> bool:
    """Writes the list with mode 0600, beside its place and then into it. An identical one is left alone, so that no
    runtime reads its network anew; True if it was written. Raises OSError."""
    wanted = conflist(mtu)
    if path.is_file() and path.read_bytes() == wanted:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(wanted)
        _sync(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
