"""Image archives without a container engine: a folder becomes an image of one layer, in one tar file.

The file is an OCI image layout (image-spec, image-layout.md) with the `manifest.json` of `docker save` beside: `ctr
images import`, `podman load`, `docker load` and `kind load image-archive` take it. The same folder gives the same
bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA: Final = "application/vnd.oci.image."


class Image(Struct, frozen=True, gc=False, kw_only=True):
    """What an image says of itself besides its files."""

    names: tuple[str, ...]
    """`registry/repository:tag`, one or more."""
    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    user: str = ""


class _Blob(Struct, frozen=True, gc=False):
    digest: str
    size: int


class _Digested(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._hash.update(piece)
        self._size += len(piece)
        self._file.write(piece)
        return len(piece)

    @property
    def blob(self) -> _Blob:
        return _Blob(self._hash.hexdigest(), self._size)


def write(out: Path, root: Path, image: Image, *, compressed: bool = False) -> int:
    """Writes the archive of a folder's files, all of them root's; gives the layer's size unpacked, in bytes. Raises
    OSError."""
    with tempfile.TemporaryFile(dir=out.parent) as file:
        layer, content = _layer(root, file, compressed)
        config = _json(
            {
                "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{content.digest}"]},
                "config": _config(image),
            }
        )
        kind = _MEDIA + "layer.v1.tar" + ("+gzip" if compressed else "")
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _MEDIA + "manifest.v1+json",
                "config": _descriptor(_MEDIA + "config.v1+json", _blob(config)),
                "layers": [_descriptor(kind, layer)],
            }
        )
        named = _descriptor(_MEDIA + "manifest.v1+json", _blob(manifest))
        index = {"schemaVersion": 2, "manifests": [named | {"annotations": _annotations(name)} for name in image.names]}
        saved = [
            {"Config": _path(_blob(config)), "RepoTags": list(image.names), "Layers": [_path(layer)]},
        ]
        fresh = out.with_name(out.name + ".new")
        with tarfile.open(fresh, "w") as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(tar, "index.json", _json(index))
            _add(tar, "manifest.json", _json(saved))
            for document in (config, manifest):
                _add(tar, _path(_blob(document)), document)
            entry = tarfile.TarInfo(_path(layer))
            entry.size = layer.size
            file.seek(0)
            tar.addfile(entry, file)
        fresh.replace(out)
        return content.size


def _layer(root: Path, file: BinaryIO, compressed: bool) -> tuple[_Blob, _Blob]:
    """Writes the layer; what lies in the file, and what it is unpacked."""
    written = _Digested(file)
    packed = gzip.GzipFile(fileobj=written, mode="wb", compresslevel=6, mtime=0, filename="") if compressed else None
    content = _Digested(packed or written)  # type: ignore[arg-type]
    with tarfile.open(fileobj=content, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, path.relative_to(root).as_posix(), recursive=False, filter=_plain)
    if packed:
        packed.close()
    return written.blob, content.blob


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _config(image: Image) -> dict[str, object]:
    settings: dict[str, object] = {
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.command),
        "Env": [f"{name}={value}" for name, value in image.environment.items()],
        "User": image.user,
    }
    return {name: value for name, value in settings.items() if value}


def _annotations(name: str) -> dict[str, str]:
    return {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}


def _descriptor(kind: str, blob: _Blob) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{blob.digest}", "size": blob.size}


def _path(blob: _Blob) -> str:
    return f"blobs/sha256/{blob.digest}"


def _blob(document: bytes) -> _Blob:
    return _Blob(hashlib.sha256(document).hexdigest(), len(document))


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


__all__: Sequence[str] = ("Image", "write")
