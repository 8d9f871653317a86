"""The ready file."""

import asyncio
import time

from calipy.cni.readiness import keep, line, write


def test_line():
    assert line(12.3456, 60.0) == "12.346 60\n"


def test_write(tmp_path):
    write(tmp_path / "run" / "ready", 1, 2.5)
    write(tmp_path / "run" / "ready", 2, 2.5)
    assert (tmp_path / "run" / "ready").read_text() == "2.000 2.5\n"
    assert len(list((tmp_path / "run").iterdir())) == 1


async def test_it_is_kept_while_nothing_stands_in_the_way(tmp_path):
    path, asked = tmp_path / "ready", asyncio.Queue()
    obstacles = ["not in sync", "", "store away", ""]

    def obstacle():
        found = obstacles.pop(0) if obstacles else "end"
        asked.put_nowait((found, path.exists()))
        return found

    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep(path, obstacle, 60.0, lambda problem: None, every_s=0))
        seen = [await asked.get() for _ in range(5)]
        task.cancel()
    assert [existed for _, existed in seen] == [False, False, True, True, True]
    seconds, grace = map(float, path.read_text().split())
    assert before - 0.001 <= seconds <= time.clock_gettime(time.CLOCK_BOOTTIME) + 0.001
    assert grace == 60


async def test_a_file_that_can_not_be_written_is_told_and_tried_again(tmp_path):
    folder, told = tmp_path / "run", asyncio.Queue()
    folder.write_text("in the way")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep(folder / "ready", lambda: "", 60.0, told.put_nowait, every_s=0))
        for _ in range(3):
            assert await told.get() == (
                f"{folder}/ready can't be written: File exists; until it can, STATUS will say not ready"
            )
        folder.unlink()
        while await told.get():
            pass
        assert (folder / "ready").exists()
        task.cancel()
