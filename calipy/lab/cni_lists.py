"""The folder of network configurations as libcni reads it: which list is used, and in which version.

Source: CNI specification 1.1, section 1, and libcni's behaviour where that leaves a choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct, field

from calipy.lab.cni_failures import CniFailure

NEWEST: Final = "1.1.0"
"""The newest version of the specification that this runtime knows; a list's newer ones are passed over."""
_SUFFIXES: Final = (".conflist", ".conf", ".json")


class NetworkList(Struct, frozen=True, gc=False, kw_only=True):
    """A file of the configuration folder."""

    name: str = ""
    version: str = field(name="cniVersion", default="0.1.0")
    versions: tuple[str, ...] = field(name="cniVersions", default=())
    disable_check: bool = field(name="disableCheck", default=False)
    disable_gc: bool = field(name="disableGC", default=False)
    plugins: tuple[Mapping[str, object], ...] = ()

    def chosen(self) -> str:
        """The newest version that both sides know."""
        if not self.versions:
            return self.version
        known = [entry for entry in (*self.versions, self.version) if ordered(entry) <= ordered(NEWEST)]
        return max(known, key=ordered, default=self.version)


def first(folder: Path) -> NetworkList:
    """The first configuration by file name. Raises CniFailure if there is none, or it can't be used."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except FileNotFoundError:
        paths = []
    if not paths:
        raise CniFailure(0, f"no networks found in {folder}")
    path = paths[0]
    try:
        content = path.read_bytes()
        network = msgspec.json.decode(content, type=NetworkList)
        if path.suffix != ".conflist":  # one plug-in's configuration is a list of one
            network = msgspec.structs.replace(network, plugins=(msgspec.json.decode(content, type=dict),))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CniFailure(0, f"error parsing configuration {path}: {error}") from error
    if not network.name:
        raise CniFailure(0, f"error parsing configuration {path}: no name")
    if not network.plugins or not all(isinstance(plugin.get("type"), str) for plugin in network.plugins):
        raise CniFailure(0, f"error parsing configuration {path}: no plugins in list, or one without a type")
    return network


def ordered(version: str) -> tuple[int, ...]:
    """A version as it compares. Raises CniFailure for what is none."""
    try:
        return tuple(int(part) for part in version.split("."))
    except ValueError as error:
        raise CniFailure(0, f'failed to parse version "{version}"') from error
