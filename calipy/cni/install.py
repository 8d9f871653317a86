"""What a container runtime finds on this node: the forwarder in its plug-in folder, and the network's conflist."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from calipy import files

FORWARDER = "calipy-cni"
BUILT = (Path(__file__).parent / "forwarder" / FORWARDER, Path(__file__).parents[2] / "build" / FORWARDER)
"""Where the built forwarder may lie: with an installed package, or in a checkout."""
NETWORK = "k8s-pod-network"
"""Calico's name, so that IPAM handles are the same."""


class Unusable(Exception):
    """The forwarder doesn't run on this machine."""


def install_forwarder(folder: str, forwarder: str = "", *, update: bool = True) -> str:
    """Copies the forwarder into `folder`: a runtime that executes it meanwhile has the old or the new one. One that is
    there stays where `update` is false. Gives the path. Raises Unusable, with the old one in its place; OSError;
    FileNotFoundError says how to build it."""
    places = (Path(forwarder),) if forwarder else BUILT
    source = next((path for path in places if path.is_file()), None)
    if source is None:
        raise FileNotFoundError(f"{places[-1]}: no forwarder there; build it (make setup) or name one with --forwarder")
    place = Path(folder) / FORWARDER
    if update or not place.exists():
        _try(source)
        files.replace(place, source.read_bytes(), mode=0o755)
    return str(place)


def _try(forwarder: Path) -> None:
    """It answers VERSION by itself. A runtime would tell of a wrong one with each pod. Raises Unusable."""
    command = [str(forwarder)]
    try:
        done = subprocess.run(command, env={"CNI_COMMAND": "VERSION"}, input=b"{}", capture_output=True, timeout=_TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        said = error.strerror if isinstance(error, OSError) else f"no answer within {_TRY_S:g} s"
    else:
        said = "" if b"cniVersion" in done.stdout else f"it answers VERSION with {done.stdout[:100]!r}"
    if said:
        raise Unusable(f"{forwarder}: {said}; is it built for this machine, {os.uname().machine}?")


_TRY_S = 5.0


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
