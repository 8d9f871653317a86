"""The lab's folder on the host: what lies in it, who may build or remove, and how it is emptied, also after a crash.

Everything of a lab lies there (CALIPY_LAB, /run/calipy-lab): `lab.json`, a folder a machine, and `store`, which every
node has as its /var/lib/calipy.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from calipy.console.failures import Failure
from calipy.lab.machines import Machine
from calipy.lab.topology import Plan
from calipy.lab.waiting import together
from calipy.settings import LAB_FOLDER


class Plate(Struct, frozen=True, gc=False, kw_only=True):
    """lab.json: what kind of lab lies in the folder."""

    plan: Plan
    complete: bool = False
    """False while it is set up, and for ever after a crash in it."""


def folder_from(environment: Mapping[str, str]) -> Path:
    """The lab's folder. Raises Failure for a path that isn't absolute."""
    text = environment.get("CALIPY_LAB") or LAB_FOLDER
    if not text.startswith("/"):
        raise Failure("environment variable CALIPY_LAB", "is not an absolute path", "write one", value=text)
    return Path(text)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for one command that builds or removes. Raises Failure if another is at
    work, or the folder is somebody else's."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = f"another command is building or removing the one in {folder}"
            raise Failure("the lab", reason, "wait for its end, or end it") from error
        if read_plate(folder) is None and any(entry.name != ".lab.json" for entry in folder.iterdir()):
            raise Failure(f"folder {folder}", "holds other things than a lab", "set CALIPY_LAB to another one")
        yield
    finally:
        os.close(lock)


def read_plate(folder: Path) -> Plate | None:
    """lab.json; None where there is none."""
    try:
        return msgspec.json.decode((folder / "lab.json").read_bytes(), type=Plate)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        return Plate(plan=Plan())  # another version's: it can be removed, no more


def write_plate(folder: Path, plate: Plate) -> None:
    """Writes lab.json whole."""
    new = folder / ".lab.json"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(plate), indent=2) + b"\n")
    new.replace(folder / "lab.json")


def _machines_in(folder: Path) -> Iterator[Machine]:
    for place in sorted(folder.glob("*/machine.json")):
        yield Machine(place.parent.name, place.parent)


def powered(folder: Path) -> bool:
    """True while a machine of the folder has power."""
    return any(machine.identity for machine in _machines_in(folder))


async def sweep(folder: Path) -> None:
    """Ends all machines of the folder and empties it, but for lab.json."""
    await together(machine.power_cut() for machine in _machines_in(folder))
    _empty(folder)


def _empty(folder: Path) -> None:
    for place in folder.iterdir():
        if place.is_dir():
            shutil.rmtree(place)


def is_there(folder: Path) -> bool:
    """True if there is such a folder."""
    return folder.is_dir()


async def clear(folder: Path) -> None:
    """Ends all machines of the folder, and removes it."""
    await sweep(folder)
    _remove(folder)


def _remove(folder: Path) -> None:
    (folder / "lab.json").unlink(missing_ok=True)
    (folder / ".lab.json").unlink(missing_ok=True)
    folder.rmdir()
