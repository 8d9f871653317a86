"""Images of the test cluster, without a registry: made of the cluster's programs and of this host's tools, unpacked
into a containerd root once, and hard-linked from there into each node's.

Names lie below `local.test`, which nobody serves: nothing is ever pulled.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from calipy.lab.cluster import PATH
from calipy.lab.machines import Machine
from calipy.lab.waiting import eventually
from image import oci
from tests.cluster import binaries, configuration

PAUSE: Final = configuration.PAUSE
AGNHOST: Final = "local.test/e2e/agnhost:2.56"
COREDNS: Final = "local.test/coredns:1"
_ALIASES: Final = (
    "local.test/e2e/jessie-dnsutils:1.7",
    "local.test/e2e/busybox:1.37.0-1",
    "local.test/e2e/busybox:1.36.1-1",
)
"""What else the upstream tests ask for: of these images they use what our agnhost has."""
_TOOLS: Final = ("bash", "getent", "curl", "dig", "nc.openbsd", "ss", "ip", "nft", "xtables-nft-multi")
_FOLDERS: Final = (
    "bin",
    "lib64",
    "etc",
    "uploads",
    "usr/bin",
    "usr/sbin",
    "root",
    "proc",
    "sys",
    "dev",
    "run",
    "var/run",
)
_PASSWD: Final = "root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n"
_GROUP: Final = "root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
_FRESH: Final = ".new-"
_KEPT: Final = 3
"""So many roots are kept."""
_UNPACK_S: Final = 120.0


async def unpacked(programs: Path, more: Sequence[Path] = ()) -> Path:
    """A containerd root that has the cluster's images, and those of the archives `more`. Raises MachineError."""
    folder = binaries.cache() / "images"
    place = folder / _fingerprint(programs, more)
    if not place.exists():
        os.makedirs(folder, exist_ok=True)
        with open(folder / "lock", "w") as lock:  # noqa: ASYNC230
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            if not place.exists():  # another may have been faster
                await _sweep(folder)
                await _unpack(programs, more, place)
    os.utime(place)
    return place


async def _unpack(programs: Path, more: Sequence[Path], place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=_FRESH, dir=place.parent) as fresh:
        await _import(Path(fresh), [*_archives(programs, Path(fresh)), *_copied(more, Path(fresh))])
        os.rename(Path(fresh, "root"), place)


async def _sweep(folder: Path) -> None:
    """Removes what a killed run has left, and all but those that were used last."""
    for left in folder.glob(f"{_FRESH}*"):  # noqa: ASYNC240
        await _machine(left).power_cut()
        shutil.rmtree(left)
    known = sorted((path for path in folder.iterdir() if path.is_dir()), key=os.path.getmtime)  # noqa: ASYNC240
    for old in known[:-_KEPT]:
        shutil.rmtree(old)


def link(template: Path, place: Path) -> None:
    """Copies a containerd root: by hard links where it can, but for the databases: layers are never written to."""

    def copy(source: str, target: str) -> None:
        if source.endswith(".db"):
            shutil.copy2(source, target)
            return
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # another file system
            shutil.copy2(source, target, follow_symlinks=False)

    shutil.copytree(template, place, symlinks=True, copy_function=copy, dirs_exist_ok=True)


def _fingerprint(programs: Path, more: Sequence[Path]) -> str:
    tools = [Path(_which(tool)) for tool in ("busybox", *_TOOLS)]
    sources = [Path(__file__), Path(oci.__file__)]
    parts = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in (*tools, *sources)]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in more]
    return hashlib.sha256("\n".join((programs.name, *parts)).encode()).hexdigest()[:16]


def _which(tool: str) -> str:
    found = shutil.which(tool, path=PATH)
    if found is None:
        raise binaries.BuildError(f"the test image: {tool}: no such program; run scripts/setup cluster")
    return found


def _copied(archives: Sequence[Path], folder: Path) -> list[Path]:
    return [Path(shutil.copyfile(path, folder / f"more-{number}.tar")) for number, path in enumerate(archives)]


async def _import(folder: Path, archives: Sequence[Path]) -> None:
    """Unpacks archives that lie in a folder into `root` beside them. On a machine of its own: what containerd mounts
    goes with it."""
    config = folder / "etc" / "containerd.toml"
    config.parent.mkdir()
    config.write_text(configuration.containerd())
    machine = _machine(folder)
    await machine.start()
    try:
        await machine.spawn("containerd", configuration.CONTAINERD, {"PATH": PATH})

        async def serves() -> bool:
            return (await machine.run("ctr", "version", check=False)).status == 0

        await eventually(serves, "containerd for the images")
        for archive in archives:
            await machine.run(*configuration.IMPORT, f"/srv/{archive.name}", timeout_s=_UNPACK_S)
        await machine.process("containerd").stop()  # its databases are whole
    finally:
        await machine.power_cut()


def _machine(folder: Path) -> Machine:
    binds = {"/var/lib/containerd": folder / "root", "/etc/containerd": folder / "etc", "/srv": folder}
    return Machine("images", folder / "m", binds)


def _archives(programs: Path, folder: Path) -> list[Path]:
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    agnhost = oci.Image(names=(AGNHOST, *_ALIASES), entrypoint=("/agnhost",), command=("pause",), environment=path)
    images = {
        "pause": oci.Image(names=(PAUSE,), entrypoint=("/pause",)),
        "agnhost": agnhost,
        "coredns": oci.Image(names=(COREDNS,), entrypoint=("/coredns",)),
    }
    archives = []
    for name, image in images.items():
        root = folder / name
        for place in ("etc", "tmp", "proc", "sys", "dev"):
            (root / place).mkdir(parents=True, exist_ok=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy2(programs / name, root / name)
        if name == "agnhost":
            _furnish(root, programs)
        archives.append(folder / f"{name}.tar")
        oci.write(archives[-1], root, image)
    return archives


def _furnish(root: Path, programs: Path) -> None:
    """What upstream's agnhost image has besides agnhost, as far as its tests use it."""
    for place in _FOLDERS:
        (root / place).mkdir(parents=True, exist_ok=True)
    busybox = _which("busybox")
    shutil.copy2(busybox, root / "bin" / "busybox")
    applets = subprocess.run((busybox, "--list"), capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        if not (root / "bin" / name).exists():
            (root / "bin" / name).symlink_to("busybox")
    for tool in _TOOLS:
        _bring(Path(_which(tool)), root, root / "bin" / tool.removesuffix(".openbsd"))
    # busybox's shell takes its own applets before PATH's programs, and its nc has no -z.
    (root / "bin" / "sh").unlink()
    (root / "bin" / "sh").symlink_to("bash")
    for extensions in Path("/usr/lib").glob("*/xtables"):
        shutil.copytree(extensions, root / extensions.relative_to("/"), dirs_exist_ok=True)
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        (root / "bin" / name).symlink_to("xtables-nft-multi")
    (root / "agnhost-2").symlink_to("agnhost")
    for name in binaries.PROGRAMS["agnhost"].beside:
        shutil.copy2(programs / name, root / name)
    for name, text in (("passwd", _PASSWD), ("group", _GROUP), ("nsswitch.conf", "hosts: files dns\n")):
        (root / "etc" / name).write_text(text)


def _bring(program: Path, root: Path, target: Path) -> None:
    """Copies a program, and the libraries that it is linked with."""
    target.unlink(missing_ok=True)
    shutil.copy2(program.resolve(), target)
    linked = subprocess.run(("ldd", program), capture_output=True, text=True, check=False).stdout
    for library in map(Path, re.findall(r"(/\S+) \(0x", linked)):
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy2(library.resolve(), place)
