"""A full disk, and one that can't be written, under the embedded store: in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILL = """
import asyncio, os, sqlite3, sys
from contextlib import closing
from pathlib import Path
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Unavailable
from calipy.resources.ipam_handles import KIND, IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import ObjectMeta

FOLDER = Path(sys.argv[1])

def handle(n):
    return IPAMHandle(metadata=ObjectMeta(name=f"h{n}"), spec=IPAMHandleSpec(handle_id="x" * 4000, block={}))

async def main():
    store = await SQLiteStore.open(FOLDER / "store.db")
    written = 0
    try:
        while True:
            await store.create(KIND, handle(written))
            written += 1
    except Unavailable as error:
        print(error)
    assert written > 100, written
    held = [s async for page in store.list(KIND) for s in page.items]
    assert len(held) == written, (len(held), written)
    await store.get(KIND, "h0")
    os.unlink(FOLDER / "ballast")
    await store.create(KIND, handle("after"))
    await store.close()
    with closing(sqlite3.connect(FOLDER / "store.db")) as connection:
        print(connection.execute("PRAGMA integrity_check").fetchone()[0])

asyncio.run(main())
"""
SCRIPT = """
set -e
mount -t tmpfs -o size=6m none "$2"
dd if=/dev/zero of="$2/ballast" bs=64k count=16 status=none
exec "$0" -c "$1" "$2"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_a_full_disk_is_unavailable_loses_nothing_and_heals(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, sys.executable, FILL, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said, integrity = done.stdout.splitlines()
    assert str(tmp_path / "store.db") in said
    assert f"free some in {tmp_path}" in said
    assert integrity == "ok"


READ_ONLY = """
import asyncio, subprocess, sys
from pathlib import Path
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Unavailable
from calipy.resources.ipam_handles import KIND, IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import ObjectMeta

FOLDER = Path(sys.argv[1])

def remount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(FOLDER)], check=True)

async def main():
    store = await SQLiteStore.open(FOLDER / "store.db")
    await store.create(KIND, IPAMHandle(metadata=ObjectMeta(name="a"), spec=IPAMHandleSpec(handle_id="a", block={})))
    await store.close()
    remount("ro")
    try:
        await SQLiteStore.open(FOLDER / "store.db")
    except Unavailable as error:
        print(error)
    remount("rw")
    store = await SQLiteStore.open(FOLDER / "store.db")
    print((await store.get(KIND, "a")).key)
    await store.close()

asyncio.run(main())
"""
MOUNT = """
set -e
mount -t tmpfs none "$2"
exec "$0" -c "$1" "$2"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_a_read_only_disk_is_unavailable_and_heals(tmp_path: Path) -> None:
    command = [
        "unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, sys.executable, READ_ONLY, tmp_path,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said, key = done.stdout.splitlines()
    assert said.startswith(f"{tmp_path}/store.db: ")
    assert f"check that {tmp_path} exists and can be written" in said
    assert key == "IPAMHandle/a"
