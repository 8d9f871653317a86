"""Archives of images: what container engines read in them is what is in the folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from image import oci

IMAGE = oci.Image(names=("a.test/x:1", "a.test/y:2"), entrypoint=("/run",), command=("now",), environment={"A": "b"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with what images have."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "run").write_bytes(b"#!/bin/sh\n" * 1000)
    (root / "bin" / "run").chmod(0o755)
    (root / "bin" / "sh").symlink_to("run")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    return root


def files(archive: Path) -> dict[str, bytes]:
    """What lies in it."""
    with tarfile.open(archive) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("compressed", [False, True])
def test_every_digest_and_size_is_right(root: Path, tmp_path: Path, compressed: bool) -> None:
    unpacked = oci.write(tmp_path / "x.tar", root, IMAGE, compressed=compressed)
    found = files(tmp_path / "x.tar")
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    blobs = {name.rpartition("/")[2]: data for name, data in found.items() if name.startswith("blobs/sha256/")}
    assert all(digest(data) == name for name, data in blobs.items())
    named = json.loads(found["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in named] == list(IMAGE.names)
    manifest = blobs[named[0]["digest"].removeprefix("sha256:")]
    assert {entry["size"] for entry in named} == {len(manifest)}
    config, (layer,) = (json.loads(manifest)[part] for part in ("config", "layers"))
    packed = blobs[layer["digest"].removeprefix("sha256:")]
    content = gzip.decompress(packed) if compressed else packed
    assert layer["mediaType"].endswith("tar+gzip" if compressed else "tar")
    assert (layer["size"], unpacked) == (len(packed), len(content))
    settings = json.loads(blobs[config["digest"].removeprefix("sha256:")])
    assert settings["rootfs"]["diff_ids"] == [f"sha256:{digest(content)}"]
    assert settings["config"] == {"Entrypoint": ["/run"], "Cmd": ["now"], "Env": ["A=b"]}
    saved = json.loads(found["manifest.json"])
    assert saved == [
        {
            "Config": f"blobs/sha256/{digest(blobs[config['digest'][7:]])}",
            "RepoTags": list(IMAGE.names),
            "Layers": [f"blobs/sha256/{digest(packed)}"],
        }
    ]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = {entry.name: entry for entry in tar}
        assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in tar} == {(0, 0, "", 0)}
    assert list(entries) == ["bin", "bin/run", "bin/sh", "tmp"]
    assert (entries["bin/sh"].linkname, entries["bin/run"].mode, entries["tmp"].mode) == ("run", 0o755, 0o1777)


def test_the_same_folder_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        oci.write(tmp_path / name, root, IMAGE, compressed=True)
        os.utime(root / "bin" / "run", (1, 1))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
