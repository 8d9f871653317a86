"""Files for others: whole or not at all, and on the disk when it is said."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from calipy import files


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_put_makes_replaces_and_leaves_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mtu"
    assert files.put(path, b"1450\n")
    first = path.stat()
    assert not files.put(path, b"1450\n")
    assert path.stat().st_ino == first.st_ino
    assert files.put(path, b"1500\n")
    assert path.read_bytes() == b"1500\n"
    assert names(path.parent) == ["mtu"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_the_mode_is_the_given_one_whatever_the_umask_and_the_former_file(tmp_path: Path, mode: int) -> None:
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x").chmod(0o640)
    former = os.umask(0o077)
    try:
        files.replace(tmp_path / "x", b"new", mode=mode)
    finally:
        os.umask(former)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_the_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    synced: list[tuple[bytes, bytes]] = []

    def fsync(descriptor: int) -> None:
        at = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((b"" if at == tmp_path else at.read_bytes(), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.replace(path, b"new")
    assert synced == [(b"new", b"old"), (b"", b"new")]
    files.replace(path, b"newer", durable=False)
    assert len(synced) == 2


def test_where_it_fails_the_old_one_stays_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        files.replace(tmp_path / "x", b"new")
    assert raised.value.filename == str(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]
