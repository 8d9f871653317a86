"""A lab machine's own view of the file system. Run by its process 1, in a fresh mount namespace; standard library only.

Nothing that the machine writes reaches the host's disk: /etc, /opt, /var/lib and /var/log are overlays whose upper side
is a tmpfs that only the machine sees (so mount points can be made there at will), /run and /tmp are its own tmpfs. What
the host has mounted below those places (a checkout on its own disk, a container's /etc/hosts) shows through, read-only,
and so does the program where it lies below /run or /tmp.
The binds of the machine, and they alone, are the lab's folders. /sys is mounted anew, so that it shows the machine's
links.
Every mount is private to the namespace: it goes when the machine's last process does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence

OVERLAID = ("/etc", "/opt", "/var/lib", "/var/log")
OWN = ("/run", "/tmp")
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CGROUPS = "/sys/fs/cgroup"
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError that names source and target."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or 'bind'} {source} on {target}: {os.strerror(number)}")


def build(binds: Mapping[str, str], program: Sequence[str] = ()) -> None:
    """Makes the view. `binds`: path on the machine -> folder on the host, opened before anything covers it. `program`:
    folders of the host that are to be seen on the machine, too."""
    mount("none", "/", flags=_REC | _PRIVATE)
    with contextlib.ExitStack() as opened:
        folders = {target: opened.enter_context(_held(source)) for target, source in binds.items()}
        shown = {place: opened.enter_context(_held(place)) for place in _mounted_below(OVERLAID)}
        covered = [place for place in program if place.startswith(tuple(f"{own}/" for own in OWN))]
        uncovered = {place: opened.enter_context(_held(place)) for place in covered}
        cgroups = opened.enter_context(_held(_CGROUPS)) if os.path.isdir(_CGROUPS) else ""
        _overlay()
        _show(shown)
        for place in OWN:
            mount("machine", place, "tmpfs", options="mode=1777" if place == "/tmp" else "mode=755")
        for place in covered:
            os.makedirs(place, exist_ok=True)
        _show(uncovered)
        mount("sysfs", "/sys", "sysfs")
        if cgroups:
            mount(cgroups, _CGROUPS, flags=_BIND | _REC)
        for target, held in folders.items():
            os.makedirs(target, exist_ok=True)
            mount(held, target, flags=_BIND)
    os.makedirs("/run/netns", exist_ok=True)


def _show(held: Mapping[str, str]) -> None:
    for place, source in held.items():
        mount(source, place, flags=_BIND)
        mount("none", place, flags=_REMOUNT | _BIND | _RDONLY)


@contextlib.contextmanager
def _held(path: str) -> Iterator[str]:
    """A name for what lies at `path` now, whatever is mounted over it later."""
    descriptor = os.open(path, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _overlay() -> None:
    """Covers the places. The upper sides lie in a tmpfs on /run, which the machine's own /run hides afterwards."""
    mount("upper", "/run", "tmpfs", options="mode=700")
    for place in OVERLAID:
        if not os.path.isdir(place):
            continue
        upper, work = (f"/run/{side}{place.replace('/', '_')}" for side in ("upper", "work"))
        os.mkdir(upper)
        os.chmod(upper, os.stat(place).st_mode & 0o7777)
        os.mkdir(work)
        mount("overlay", place, "overlay", options=f"lowerdir={place},upperdir={upper},workdir={work}")


def _mounted_below(places: tuple[str, ...]) -> list[str]:
    """Mount points of this namespace below `places`, parents first (proc(5), mountinfo field 5)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = {line.split()[4].encode().decode("unicode_escape") for line in file if "\\" not in line.split()[4]}
    below = tuple(place + "/" for place in places)
    return sorted(point for point in points if point.startswith(below))
