"""The cache of built programs, with a Go that only writes down what it is asked for."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.binaries import BuildError, ensure

ROOT = Path(__file__).parents[2]
GO = """#!/bin/sh
case "$1" in version) echo go version go$GO_VERSION linux/amd64; exit;; list) echo "$UPSTREAM"; exit;; esac
echo "$@" >>"$BUILT"
while [ "$1" != -o ]; do shift; done
echo program >"$2"
echo "go: downloading x v1.0.0" >&2
case "$3" in *$REFUSED*) echo "$3: no such package" >&2; exit 1;; esac
"""


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that names each build, a line one; the cache is empty."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    upstream = tmp_path / "upstream" / "test" / "images" / "agnhost" / "porter"
    upstream.mkdir(parents=True)
    for name in ("localhost.crt", "localhost.key"):
        (upstream / name).write_text("pem")
    environment = {
        "PATH": f"{go.parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "BUILT": str(tmp_path / "built"),
        "UPSTREAM": str(tmp_path / "upstream"),
        "GO_VERSION": "1.26.1",
        "REFUSED": "never",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "built"


def builds(built: Path) -> list[str]:
    """What was built, in order."""
    return re.findall(r"-o \S*/(\S+) ", built.read_text())


def test_what_is_missing_is_built_once(built: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = ensure("etcd")
    assert ensure("kube-apiserver", "etcd") == ensure("kubectl") == folder
    assert builds(built) == ["etcd", "kube"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(("etcd", "kube", *binaries.PROGRAMS["kube"].links))
    assert (folder / "kubelet").readlink() == Path("kube")
    assert re.search(r"ok .* etcd built \(1 module fetched, 0 packages compiled\)", capfd.readouterr().err)


def test_each_program_has_what_belongs_to_it(built: Path) -> None:
    folder = ensure("agnhost", "pause", "e2enet.test")
    assert builds(built) == ["agnhost", "e2enet.test"]
    assert (folder / "localhost.key").read_text() == "pem"
    assert built.read_text().splitlines()[1].startswith("test -c ")
    assert (folder / "pause").read_bytes()[:4] == b"\x7fELF"


def test_a_failed_build_says_why_and_leaves_nothing(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSED", "etcd")
    with pytest.raises(BuildError, match="(?s)etcd: .*/go build: status 1:.*no such package"):
        ensure("etcd")
    assert not binaries.cached("etcd")
    assert [path.name for path in binaries.cache().iterdir() if path.is_dir() and any(path.iterdir())] == []
    monkeypatch.setenv("REFUSED", "never")
    ensure("etcd")
    assert binaries.cached("etcd")


def test_the_key_follows_sources_and_toolchain(built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = tmp_path / "go"
    (sources / "etcd").mkdir(parents=True)
    (sources / "etcd" / "go.sum").write_text("a")
    monkeypatch.setattr(binaries, "GO_SOURCES", sources)
    first = ensure("etcd")
    (sources / "etcd" / "go.sum").write_text("b")
    second = ensure("etcd")
    monkeypatch.setenv("GO_VERSION", "1.26.2")
    assert len({first, second, ensure("etcd")}) == 3
    assert builds(built) == ["etcd"] * 3


def test_an_old_go_is_passed_over(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_VERSION", "1.23.9")
    assert binaries.toolchain() == binaries.Toolchain(binaries.GO_WHEEL, None)


def test_programs_that_nobody_asks_for_go(built: Path) -> None:
    old, recent = (binaries.cache() / name for name in ("old", "recent"))
    for folder in (old, recent):
        folder.mkdir(parents=True)
    long_ago = time.time() - 15 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    current = ensure("etcd")
    assert (old.exists(), recent.exists(), current.exists()) == (False, True, True)


async def test_two_builders_build_once(built: Path) -> None:
    argv = (sys.executable, "-m", "tests.cluster.binaries", "etcd", "coredns")
    pipe = asyncio.subprocess.PIPE
    both = [await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=pipe, stderr=pipe) for _ in range(2)]
    said = [await process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][0] == said[1][0]
    assert builds(built) == ["etcd", "coredns"]


def test_an_unknown_program_is_named() -> None:
    with pytest.raises(BuildError, match=r"program 'etc': there is none of that name; there are agnhost, .*, pause$"):
        ensure("etc")
