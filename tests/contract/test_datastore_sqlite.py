"""What the embedded store alone must bear: several processes, killed ones, a file that is locked, broken or gone."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.sqlite_files import checkpoint, written_at
from calipy.datastore.stores import Conflict, Event, Exists, Expired, Store, Unavailable
from calipy.resources import ipam_handles, namespaces
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import ObjectMeta
from calipy.resources.namespaces import Namespace

HANDLE = ipam_handles.KIND

PRELUDE = """
import asyncio, sys
from pathlib import Path
from msgspec.structs import replace
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Conflict
from calipy.resources.ipam_handles import KIND, IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import ObjectMeta
def handle(name): return IPAMHandle(metadata=ObjectMeta(name=name), spec=IPAMHandleSpec(handle_id=name, block={"b": 0}))
"""
INCREMENT = (
    PRELUDE
    + """
async def main():
    store = await SQLiteStore.open(Path(sys.argv[1]), busy_limit_s=60)
    left = int(sys.argv[2])
    while left:
        old = await store.get(KIND, "a")
        try:
            spec = replace(old.value.spec, block={"b": old.value.spec.block["b"] + 1})
            await store.update(KIND, old, replace(old.value, spec=spec))
            left -= 1
        except Conflict:
            pass
    await store.close()
asyncio.run(main())
"""
)
CREATE_FOR_EVER = (
    PRELUDE
    + """
async def main():
    store = await SQLiteStore.open(Path(sys.argv[1]))
    n = 0
    while True:
        await store.create(KIND, handle(f"{sys.argv[2]}-{n}"))
        print(n, flush=True)
        n += 1
asyncio.run(main())
"""
)


def handle(name: str) -> IPAMHandle:
    return IPAMHandle(metadata=ObjectMeta(name=name), spec=IPAMHandleSpec(handle_id=name, block={"b": 0}))


def overwrite(path: Path, text: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(text)


def content(path: Path) -> bytes:
    return path.read_bytes()


def size(path: Path) -> int:
    return path.stat().st_size


def process(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_the_folder_and_the_file_are_its_owners_alone(open_store: object, sqlite_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path)
    await store.create(HANDLE, handle("a"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sqlite_path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(sqlite_path.parent.stat().st_mode) == 0o700
    await store.close()


async def test_no_increment_of_eight_processes_is_lost(store: Store, sqlite_path: Path) -> None:
    await store.create(HANDLE, handle("a"))
    processes = [process(INCREMENT, sqlite_path, 200) for _ in range(8)]
    assert [p.communicate()[0] + str(p.returncode) for p in processes] == ["0"] * 8
    assert (await store.get(HANDLE, "a")).value.spec.block == {"b": 1600}


async def test_processes_that_open_a_new_store_at_once_all_succeed(sqlite_path: Path) -> None:
    script = PRELUDE + 'asyncio.run(SQLiteStore.open(Path(sys.argv[1]), busy_limit_s=60)); print("open")'
    processes = [process(script, sqlite_path) for _ in range(4)]
    assert [p.communicate()[0] for p in processes] == ["open\n"] * 4


async def test_a_process_killed_in_the_middle_loses_nothing_that_it_was_told_is_written(
    store: Store, sqlite_path: Path
) -> None:
    for turn in range(3):
        with process(CREATE_FOR_EVER, sqlite_path, f"t{turn}") as writer:
            assert writer.stdout is not None
            written = [int(writer.stdout.readline()) for _ in range(50)][-1]
            writer.kill()
        names = {s.key.name async for page in store.list(HANDLE) for s in page.items}
        assert {f"t{turn}-{n}" for n in range(written + 1)} <= names
    with closing(sqlite3.connect(sqlite_path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await store.create(HANDLE, handle("after"))


async def test_a_watch_hears_another_process(store: Store, sqlite_path: Path) -> None:
    watch = aiter(store.watch(HANDLE, 0))
    heard = 0
    with process(CREATE_FOR_EVER, sqlite_path, "p") as writer:
        while heard < 200:
            event = await anext(watch)
            heard += event.type == "put"
        writer.kill()


async def test_a_watch_hears_a_process_that_died_between_commit_and_touch(store: Store, sqlite_path: Path) -> None:
    script = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("UPDATE objects SET revision = 1000")
sys.stdin.readline()
os.kill(os.getpid(), 9)
"""
    await store.create(HANDLE, handle("a"))
    watch = aiter(store.watch(HANDLE, 0))
    assert (await anext(watch)).revision == 2
    with process(script, sqlite_path) as dying:
        dying.communicate("die\n")
    while (event := await anext(watch)).type == "bookmark":
        pass
    assert event.revision == 1000


async def test_reads_and_watches_work_while_another_process_holds_the_write_lock(
    store: Store, sqlite_path: Path
) -> None:
    created = await store.create(HANDLE, handle("a"))
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert await store.get(HANDLE, "a") == created
        assert [len(page.items) async for page in store.list(HANDLE)] == [1]
        event = await anext(aiter(store.watch(HANDLE, 0)))
        assert event.object == created


async def test_a_write_waits_for_a_lock_and_says_who_may_hold_it_when_it_waited_enough(sqlite_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path, busy_limit_s=0.05)
    patient = await SQLiteStore.open(sqlite_path, busy_limit_s=60)
    holder = sqlite3.connect(sqlite_path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(patient.create(HANDLE, handle("patient")))
        with pytest.raises(Unavailable, match=f"{sqlite_path}: database is locked: .*fuser"):
            await store.create(HANDLE, handle("a"))
        assert not waiting.done()
        holder.close()
    await store.create(HANDLE, handle("a"))
    await store.close()
    await patient.close()


@pytest.mark.parametrize("garbage", [b"not a database, but quite long " * 200, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_broken_file_is_unavailable_and_left_alone(sqlite_path: Path, garbage: bytes) -> None:
    overwrite(sqlite_path, garbage)
    with pytest.raises(Unavailable, match=f"{sqlite_path}: .*backup"):
        await SQLiteStore.open(sqlite_path)
    assert content(sqlite_path) == garbage


async def test_a_file_that_breaks_later_is_unavailable(sqlite_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path)
    for n in range(200):
        await store.create(HANDLE, handle(f"h{n}"))
    await store.close()
    with sqlite_path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 10)
    store = await SQLiteStore.open(sqlite_path)
    with pytest.raises(Unavailable, match=f"{sqlite_path}: .*malformed.*backup"):
        await store.get(HANDLE, "h1")
    with pytest.raises(Unavailable, match="malformed"):
        [page async for page in store.list(HANDLE)]
    with pytest.raises(Unavailable, match="malformed"):
        await anext(aiter(store.watch(HANDLE, 0)))
    await store.close()


async def test_another_programs_database_is_left_alone(sqlite_path: Path) -> None:
    sqlite_path.parent.mkdir()
    with closing(sqlite3.connect(sqlite_path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(Unavailable, match="another program"):
        await SQLiteStore.open(sqlite_path)


async def test_a_newer_format_is_left_alone(sqlite_path: Path) -> None:
    await (await SQLiteStore.open(sqlite_path)).close()
    with closing(sqlite3.connect(sqlite_path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Unavailable, match="format 99"):
        await SQLiteStore.open(sqlite_path)


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=str(tmp_path / "file")):
        await SQLiteStore.open(tmp_path / "file" / "store.db")


async def test_a_file_that_is_removed_ends_watches_and_writes(store: Store, sqlite_path: Path) -> None:
    async def wait() -> None:
        with pytest.raises(Unavailable, match="removed.*put it back"):
            await anext(aiter(store.watch(HANDLE, 1)))

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        await asyncio.sleep(0)
        os.unlink(sqlite_path)
    with pytest.raises(Unavailable, match="removed"):
        await store.create(HANDLE, handle("a"))


async def test_closing_ends_watches(sqlite_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path)
    watch = aiter(store.watch(HANDLE, 0))
    created = await store.create(HANDLE, handle("a"))
    assert (await anext(watch)).object == created
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await anext(watch)


async def test_a_watch_that_lags_sees_only_the_newest_of_each_object(sqlite_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path, bookmark_delay_s=60)
    stored = await store.create(HANDLE, handle("a"))
    watch = aiter(store.watch(HANDLE, stored.revision - 1))
    assert (await anext(watch)).revision == stored.revision
    other = await store.create(HANDLE, handle("b"))
    for count in range(1, 50):
        spec = IPAMHandleSpec(handle_id="a", block={"b": count})
        value = IPAMHandle(metadata=stored.value.metadata, spec=spec)
        stored = await store.update(HANDLE, stored, value)
    assert [(await anext(watch)).object for _ in range(2)] == [other, stored]
    await store.close()


async def test_watches_of_many_kinds_share_one_inotify_descriptor(store: Store) -> None:
    def inotify_descriptors() -> int:
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        return sum(link.is_symlink() and "inotify" in os.readlink(link) for link in links)

    before = inotify_descriptors()
    watches = [aiter(store.watch(kind, 0)) for kind in (HANDLE, namespaces.KIND) * 5]
    async with asyncio.TaskGroup() as group:
        for watch in watches:
            group.create_task(_first(watch))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert inotify_descriptors() == before + 1
        await store.create(HANDLE, handle("a"))
        await store.create(namespaces.KIND, namespaces.Namespace(metadata=ObjectMeta(name="one")))


async def _first(watch: AsyncIterator[object]) -> None:
    await anext(watch)


async def test_a_checkpoint_empties_the_log(store: Store, sqlite_path: Path) -> None:
    await store.create(HANDLE, handle("a"))
    before = size(sqlite_path)
    checkpoint(sqlite_path)
    assert size(sqlite_path) > before
    assert (await store.get(HANDLE, "a")).key.name == "a"


async def another(path: Path, *names: str) -> Path:
    """A sound store in another file, closed: its log is in the database."""
    path.parent.mkdir(exist_ok=True)
    store = await SQLiteStore.open(path)
    for name in names:
        await store.create(HANDLE, handle(name))
    await store.close()
    return path


async def to_its_end(watch: AsyncIterator[object]) -> None:
    async for _ in watch:
        pass


def put_back(backup: Path, path: Path) -> None:
    """As an operator should: the former file's log goes with it."""
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{path}{suffix}")
    os.replace(backup, path)


async def test_a_file_that_is_replaced_is_taken_up_by_reads_writes_and_watches(
    sqlite_path: Path, tmp_path: Path
) -> None:
    store = await SQLiteStore.open(sqlite_path)
    await store.create(HANDLE, handle("old"))
    watch = aiter(store.watch(HANDLE, 0))
    assert (await anext(watch)).type == "put"
    backup = await another(tmp_path / "backup" / "store.db", "one", "two")
    put_back(backup, sqlite_path)
    with pytest.raises(Expired, match="was replaced.*list again"):
        await to_its_end(watch)
    assert (await store.get(HANDLE, "one")).key.name == "one"
    await store.create(HANDLE, handle("new"))
    fresh = await SQLiteStore.open(sqlite_path)
    names = [{s.key.name async for page in found.list(HANDLE) for s in page.items} for found in (store, fresh)]
    assert names == [{"one", "two", "new"}] * 2
    await store.close()
    await fresh.close()


async def test_a_write_never_goes_into_a_file_that_is_gone(sqlite_path: Path, tmp_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path)
    created = await store.create(HANDLE, handle("a"))
    kept = tmp_path / "kept.db"
    os.rename(sqlite_path, kept)
    for attempt in (store.get(HANDLE, "a"), store.create(HANDLE, handle("b")), store.delete(HANDLE, created)):
        with pytest.raises(Unavailable, match=f"{sqlite_path}: .*removed.*put it back"):
            await attempt
    os.rename(kept, sqlite_path)
    assert await store.get(HANDLE, "a") == created
    await store.create(HANDLE, handle("b"))
    await store.close()


async def test_a_folder_that_vanishes_is_unavailable_and_heals_when_it_is_back(
    sqlite_path: Path, tmp_path: Path
) -> None:
    store = await SQLiteStore.open(sqlite_path)
    await store.create(HANDLE, handle("a"))
    os.rename(sqlite_path.parent, tmp_path / "away")
    with pytest.raises(Unavailable, match=str(sqlite_path)):
        await store.get(HANDLE, "a")
    with pytest.raises(Unavailable, match=str(sqlite_path)):
        [page async for page in store.list(HANDLE)]
    with pytest.raises(Unavailable, match=str(sqlite_path)):
        await anext(aiter(store.watch(HANDLE, 0)))
    os.rename(tmp_path / "away", sqlite_path.parent)
    assert (await store.get(HANDLE, "a")).key.name == "a"
    await store.create(HANDLE, handle("b"))
    assert (await anext(aiter(store.watch(HANDLE, 2)))).object is not None
    await store.close()


@pytest.mark.parametrize(
    ("garbage", "said"),
    [(b"not a database, but quite long " * 200, "no SQLite database.*backup"), (b"", "another program")],
)
async def test_a_file_that_is_replaced_by_a_bad_one_is_unavailable_until_it_is_mended(
    sqlite_path: Path, tmp_path: Path, garbage: bytes, said: str
) -> None:
    store = await SQLiteStore.open(sqlite_path)
    bad = tmp_path / "bad"
    bad.write_bytes(garbage)
    put_back(bad, sqlite_path)
    with pytest.raises(Unavailable, match=said):
        await store.get(HANDLE, "a")
    with pytest.raises(Unavailable, match=said):
        await store.create(HANDLE, handle("a"))
    assert content(sqlite_path) == garbage
    os.replace(await another(tmp_path / "backup" / "store.db", "one"), sqlite_path)
    assert (await store.get(HANDLE, "one")).key.name == "one"
    await store.close()


async def test_waiting_for_a_lock_leaves_the_loop_to_others(sqlite_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path, busy_limit_s=60)
    holder = sqlite3.connect(sqlite_path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    turns = 0
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(store.create(HANDLE, handle("a")))
        while turns < 1000:
            turns += 1
            await asyncio.sleep(0)
        assert not waiting.done()
        holder.close()
    assert waiting.result().key.name == "a"
    await store.close()


async def test_the_former_files_log_is_not_played_into_the_one_that_was_put_in_its_place(
    sqlite_path: Path, tmp_path: Path
) -> None:
    store = await SQLiteStore.open(sqlite_path)
    await store.create(HANDLE, handle("old"))
    os.replace(await another(tmp_path / "backup" / "store.db", "one"), sqlite_path)
    words = f"{sqlite_path}: .*replaced.*log is still beside it; remove {sqlite_path}-wal and"
    with pytest.raises(Unavailable, match=words):
        await store.get(HANDLE, "one")
    with pytest.raises(Unavailable, match=words):
        [page async for page in store.list(HANDLE)]
    with pytest.raises(Unavailable, match=words):
        await anext(aiter(store.watch(HANDLE, 0)))
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{sqlite_path}{suffix}")
    assert (await store.get(HANDLE, "one")).key.name == "one"
    assert [s.key.name async for page in store.list(HANDLE) for s in page.items] == ["one"]
    await store.close()


async def test_it_is_told_when_the_log_was_written(store: Store, sqlite_path: Path) -> None:
    before = written_at(sqlite_path)
    assert written_at(sqlite_path) == before
    await store.create(HANDLE, handle("a"))
    assert written_at(sqlite_path) >= before > 0
    assert written_at(sqlite_path.with_name("none")) == 0


def space(name: str) -> Namespace:
    return Namespace(metadata=ObjectMeta(name=name))


async def test_own_writes_of_kinds_that_nobody_follows_are_not_read_again(sqlite_path: Path) -> None:
    store = await SQLiteStore.open(sqlite_path, bookmark_delay_s=0.01)
    watch = aiter(store.watch(namespaces.KIND, 0))
    await store.create(namespaces.KIND, space("one"))
    await anext(watch)
    tail = store._watches._tail
    assert tail is not None
    said: list[str] = []
    tail._connection.set_trace_callback(said.append)
    for name in "abc":
        written = await store.create(HANDLE, handle(name))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while (await anext(watch)).revision < written.revision:
            pass  # bookmarks
    assert any("SELECT max(" in statement for statement in said)
    assert not any("LIMIT" in statement for statement in said)
    await store.close()


@pytest.mark.parametrize("seed", range(20))
async def test_a_watch_misses_nothing_whoever_writes_what(sqlite_path: Path, seed: int) -> None:
    """Own writes and another's, of the kind that is followed and of one that isn't, some refused, some of no effect."""
    chance = random.Random(seed)
    mine, others = [await SQLiteStore.open(sqlite_path, bookmark_delay_s=0.01) for _ in range(2)]
    same = await mine.create(HANDLE, handle("same"))
    seen: list[str] = []

    async def follow() -> None:
        async for event in mine.watch(namespaces.KIND, 0):
            if event.object is not None:
                seen.append(event.object.key.name)
                if seen[-1] == "last":
                    return

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for number in range(40):
            store = chance.choice([mine, others])
            match chance.randrange(4):
                case 0:
                    await store.create(namespaces.KIND, space(f"s{number}"))
                case 1:
                    await store.create(HANDLE, handle(f"h{number}"))
                case 2:
                    with pytest.raises(Exists):
                        await store.create(HANDLE, handle("same"))
                case _:
                    await store.update(HANDLE, same, same.value)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0, 0, 0.002]))
        await mine.create(namespaces.KIND, space("last"))
    wanted = [stored.key.name async for page in mine.list(namespaces.KIND) for stored in page.items]
    assert sorted(seen) == sorted(wanted)
    await mine.close()
    await others.close()


async def test_a_watch_from_the_future_is_expired(store: Store) -> None:
    with pytest.raises(Expired, match="restored"):
        await anext(aiter(store.watch(HANDLE, 1_000_000)))


async def test_a_bookmark_tells_of_revisions_of_other_kinds(store: Store) -> None:
    watch = aiter(store.watch(HANDLE, (await store.create(HANDLE, handle("a"))).revision))

    async def first() -> Event[IPAMHandle]:
        return await anext(watch)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        told = group.create_task(first())
        await asyncio.sleep(0)
        created = await store.create(namespaces.KIND, space("one"))
    event = told.result()
    assert (event.type, event.revision) == ("bookmark", created.revision)


async def test_an_object_made_anew_is_told_as_such(store: Store) -> None:
    old = await store.create(HANDLE, handle("a"))
    await store.delete(HANDLE, old)
    await store.create(HANDLE, handle("a"))
    with pytest.raises(Conflict, match="made anew"):
        await store.delete(HANDLE, old)
