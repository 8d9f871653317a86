"""The images that every node has: unpacked once for all, by whoever comes first, also after one who was killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from calipy.lab.executions import started
from calipy.lab.machines import Machine
from calipy.lab.waiting import eventually, together
from tests.cluster import binaries, images

ROOT = Path(__file__).parents[2]
UNPACK = "import asyncio, sys; from pathlib import Path; from tests.cluster import images\n" + (
    "asyncio.run(images.unpacked(Path(sys.argv[1])))"
)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The real programs, and an empty cache for images; its path is short, as a socket's must be."""
    found = binaries.ensure(*binaries.CLUSTER)
    cache = tempfile.mkdtemp(prefix=f"calipy-t{os.getpid()}-")
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    yield found
    shutil.rmtree(cache)


async def test_two_at_once_unpack_once(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    unpack = images._unpack

    async def counted(*arguments: object) -> None:
        made.append(arguments)
        await unpack(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "_unpack", counted)
    first, second = await together(images.unpacked(programs) for _ in range(2))
    assert first == second
    assert len(made) == 1
    assert first.is_dir()


async def test_what_a_killed_one_has_left_goes(programs: Path) -> None:
    maker = await asyncio.create_subprocess_exec(sys.executable, "-c", UNPACK, str(programs), cwd=ROOT)
    folder = binaries.cache() / "images"

    async def at_work() -> bool:
        return _identity(folder) is not None

    await eventually(at_work, "a machine that unpacks")
    left = _machine(folder).pid
    maker.send_signal(signal.SIGKILL)
    await maker.wait()
    assert started(left)
    place = await images.unpacked(programs)
    assert started(left) is None
    assert sorted(path.name for path in folder.iterdir()) == sorted((place.name, "lock"))


def _machine(folder: Path) -> Machine:
    return Machine("images", next(folder.glob(".new-*")) / "m")


def _identity(folder: Path) -> object:
    return _machine(folder).identity if any(folder.glob(".new-*")) else None
