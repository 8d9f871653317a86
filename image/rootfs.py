"""The files of the image: a Python and a shell of Debian's packages, CalIPy and what it depends on, and the forwarder.

Packages are unpacked, not installed: nothing of theirs runs here, so no root is needed, and no file system of Debian's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from calipy.console.failures import Told
from calipy.console.progress import Steps

CHECKOUT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("python3-minimal", "libpython3.11-stdlib", "busybox-static")
"""Of Debian 12. They bring their dependencies; the shell is that of probes and of `kubectl exec`."""
PYTHON: Final = "3.11"
SITE: Final = Path("usr/local/lib") / f"python{PYTHON}" / "dist-packages"
_UNUSED_PACKAGES: Final = ("dpkg", "tar", "readline-common", "media-types", "netbase")
"""Dependencies of packages' installation, or of what nobody calls."""
_UNUSED: Final = (
    *("usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale", "usr/share/info", "usr/share/bug"),
    *("usr/share/python3", "usr/share/gcc", "usr/share/gdb", "usr/share/initramfs-tools", "usr/lib/python3.11/lib2to3"),
    *("usr/lib/python3.11/ensurepip", "usr/lib/python3.11/pydoc_data", "usr/lib/python3.11/turtle.py"),
)
_MERGED: Final = ("bin", "lib", "lib64", "sbin")
"""Links into usr, which a package that is not installed would make folders."""


class ImageError(Told):
    """A step of making the image failed: names it, what was run, and what was said."""


async def make(root: Path, folder: Path, steps: Steps) -> None:
    """Fills the empty folder `root`. `folder` keeps what is fetched. Raises ImageError."""
    async with steps.step(f"Debian's {', '.join(PACKAGES)} with their dependencies") as step:
        count = await asyncio.to_thread(_debian, root, folder)
        step.say(f"{count} packages")
    async with steps.step("CalIPy and its Python packages"):
        await asyncio.to_thread(_python_packages, root, folder)
    async with steps.step("bytecode compiled"):
        await asyncio.to_thread(_compile, root)


def _debian(root: Path, folder: Path) -> int:
    archives, nowhere = folder / "debian", folder / "nowhere"
    for place in (archives, nowhere):
        (place / "partial").mkdir(parents=True, exist_ok=True)
    nothing = folder / "status"
    nothing.touch()
    # As if no package was installed, nor, to have them listed, fetched: then these are all dependencies.
    listed = _apt(nothing, nowhere, "--print-uris")
    _apt(nothing, archives, "--download-only", "--yes")
    names = [line.split()[1] for line in listed.splitlines()]
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    used = [name for name in names if name.partition("_")[0] not in _UNUSED_PACKAGES]
    for name in used:
        _unpack(archives / name, root)
    _furnish(root)
    return len(used)


def _apt(status: Path, archives: Path, *arguments: str) -> str:
    settings = (f"Dir::State::status={status}", f"Dir::Cache::archives={archives}", "APT::Install-Recommends=false")
    options = [word for setting in (*settings, "Debug::NoLocking=1") for word in ("-o", setting)]
    what = "Debian packages (is `apt-get update` due?)"
    return _run(what, "apt-get", *options, "-qq", "install", *arguments, *PACKAGES)


def _unpack(archive: Path, root: Path) -> None:
    with subprocess.Popen(("dpkg-deb", "--fsys-tarfile", archive), stdout=subprocess.PIPE) as packed:
        argv = ("tar", "--extract", "--keep-directory-symlink", "--no-same-owner", "--directory", root)
        done = subprocess.run(argv, stdin=packed.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode or packed.returncode:
        raise ImageError(f"{archive.name}: it can't be unpacked: {done.stderr.strip()}")


def _furnish(root: Path) -> None:
    """What packages would do when they are installed, as far as it is needed here."""
    for place in _UNUSED:
        path = root / place
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for place in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib", "var/run", "usr/local/bin"):
        (root / place).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc" / "nsswitch.conf").write_text("hosts: files dns\n")
    for applet in _run("busybox", str(root / "bin" / "busybox"), "--list").split():
        link = root / "usr" / "bin" / applet
        if not link.exists() and not (root / "usr" / "sbin" / applet).exists():
            link.symlink_to("busybox")


def _python_packages(root: Path, folder: Path) -> None:
    source = folder / "source"  # setuptools would take what an earlier build has left in the checkout
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(CHECKOUT / "calipy", source / "calipy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(CHECKOUT / name, source / name)
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    _run("the package calipy", *pip, "wheel", "--no-deps", "--wheel-dir", str(source), str(source))
    ours = next(source.glob("calipy-*.whl"))
    site = root / SITE
    chosen = ("--target", str(site), "--only-binary", ":all:", "--python-version", PYTHON, "--no-compile")
    _run("Python packages", *pip, "install", *chosen, str(ours))
    shutil.rmtree(site / "bin")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for name, entry in project["scripts"].items():
        module, _, function = entry.partition(":")
        program = root / "usr" / "local" / "bin" / name
        program.write_text(
            f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        program.chmod(0o755)
    shutil.copy2(CHECKOUT / "build" / "calipy-cni", site / "calipy" / "cni" / "forwarder" / "calipy-cni")


def _compile(root: Path) -> None:
    """By the image's own interpreter, whatever our environment says of bytecode. Files have no time in an image: their
    hashes stand in the bytecode, unchecked."""
    compiler = ("/usr/bin/python3", "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    enter = ("chroot", str(root)) if os.geteuid() == 0 else ("unshare", "--map-root-user", "chroot", str(root))
    _run("bytecode", *enter, *compiler, "/usr/lib/python3.11", "/usr/local/lib/python3.11")


def _run(what: str, *argv: str) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
    except FileNotFoundError as error:
        remedy = "elsewhere than on Debian use image/Containerfile"
        raise ImageError(f"{what}: {argv[0]}: no such program; {remedy}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ImageError(f"{what}: {' '.join(argv)}: status {done.returncode}: {said}")
    return done.stdout
