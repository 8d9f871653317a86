"""What plug-ins answer to ADD, and what is kept of it until DEL.

Source: CNI specification 1.1, section 5, and libcni's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import msgspec
from msgspec import Raw, Struct, field

from calipy import files
from calipy.lab.cni_failures import CniFailure, decoded
from calipy.lab.cni_lists import NetworkList, ordered


class Interface(Struct, frozen=True, gc=False):
    """An interface of a result; an empty sandbox: on the node."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0


class Address(Struct, frozen=True, gc=False):
    """An address of a result, with its prefix length; `interface` is an index into the result's."""

    address: str
    gateway: str | None = None
    interface: int | None = None


class Route(Struct, frozen=True, gc=False):
    """A route of a result."""

    destination: str = field(name="dst")
    gateway: str | None = field(name="gw", default=None)


class Added(Struct, frozen=True, gc=False, kw_only=True):
    """What the last plug-in of the list answered to ADD."""

    version: str = field(name="cniVersion", default="")
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    raw: bytes = b""
    """The result as it was printed (JSON)."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The container's addresses, without prefix lengths."""
        return tuple(entry.address.partition("/")[0] for entry in self.ips)


class Attachment(Struct, frozen=True, gc=False, kw_only=True):
    """Whom a verb is about."""

    container_id: str = ""
    netns: str = ""
    interface: str = ""
    args: Mapping[str, str] = {}
    capabilities: Mapping[str, object] = {}


class _Cached(Struct, frozen=True, gc=False, kw_only=True):
    """What is kept of an attachment (libcni's cniCacheV1; less the configuration, which nobody reads back)."""

    kind: str = "cniCacheV1"
    container_id: str = field(name="containerId")
    interface: str = field(name="ifName")
    network: str = field(name="networkName")
    netns: str
    result: Raw


class Results:
    """The results of a machine's attachments, a file each, by network, container and interface."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, network: NetworkList, attachment: Attachment, result: bytes) -> None:
        """Remembers the result of an ADD."""
        path = self._place(network, attachment)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = _Cached(
            container_id=attachment.container_id,
            interface=attachment.interface,
            network=network.name,
            netns=attachment.netns,
            result=Raw(result),
        )
        files.replace(path, msgspec.json.encode(kept), mode=0o600, durable=False)

    def kept(self, network: NetworkList, attachment: Attachment) -> bytes:
        """The result of an ADD in the list's version; empty if there is none that can be read."""
        path = self._place(network, attachment)
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Cached)
        except FileNotFoundError:
            return b""
        except (msgspec.MsgspecError, UnicodeDecodeError):
            path.unlink()
            return b""
        return _converted(bytes(kept.result), network.chosen())

    def stale(self, network: NetworkList, valid: Set[tuple[str, str]]) -> Iterator[Attachment]:
        """What is remembered and is none of these (container ID, interface)."""
        for path in sorted((self._folder).glob("[!.]*")):
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=_Cached)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # as libcni: what can't be read names no attachment
            if kept.network == network.name and (kept.container_id, kept.interface) not in valid:
                yield Attachment(container_id=kept.container_id, netns=kept.netns, interface=kept.interface)

    def forget(self, network: NetworkList, attachment: Attachment) -> None:
        """After its DEL."""
        self._place(network, attachment).unlink(missing_ok=True)

    def _place(self, network: NetworkList, attachment: Attachment) -> Path:
        return self._folder / f"{network.name}-{attachment.container_id}-{attachment.interface}"


def versioned(said: bytes, version: str, plugin: Mapping[str, object]) -> bytes:
    """A result that says which version it is: the one asked for where the plug-in doesn't say."""
    name = str(plugin["type"])
    result = dict(decoded(said, dict[str, object], name, "ADD"))
    given = result.setdefault("cniVersion", version)
    if given not in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"):
        raise CniFailure(0, f'unsupported CNI result version "{given}"', plugin=name, verb="ADD")
    decoded(said, Added, name, "ADD")
    return msgspec.json.encode(result)


def _converted(said: bytes, version: str) -> bytes:
    """A result in another version: before 1.0.0 each address says its family."""
    result = msgspec.json.decode(said, type=dict[str, object])
    result["cniVersion"] = version
    addresses = msgspec.convert(result.get("ips", []), type=list[dict[str, object]])
    for entry in addresses:
        entry.pop("version", None)
        if ordered(version) < ordered("1.0.0"):
            entry["version"] = "6" if ":" in str(entry["address"]) else "4"
    if addresses:
        result["ips"] = addresses
    return msgspec.json.encode(result)
