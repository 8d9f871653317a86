"""A lab's beginning and end, as far as no machine is needed."""

from __future__ import annotations

import io

import pytest

from calipy.console.failures import Failure
from calipy.console.progress import Steps
from calipy.lab import lifecycle
from calipy.lab.cluster import Lab
from calipy.lab.folders import Plate, write_plate
from calipy.lab.machines import MachineError
from calipy.lab.topology import Plan


async def test_somebody_else_s_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(Failure, match="set CALIPY_LAB to another one"):
        await lifecycle.down(tmp_path)

    assert (tmp_path / "thesis.txt").read_text() == "years of work"


async def test_what_a_crash_has_left_is_removed(tmp_path):
    folder = tmp_path / "lab"
    (folder / "n1").mkdir(parents=True)
    write_plate(folder, Plate(plan=Plan()))

    assert await lifecycle.down(folder)
    assert not folder.exists()
    assert not await lifecycle.down(folder)


async def test_a_plate_that_can_t_be_read_does_not_keep_a_lab_from_being_removed(tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "lab.json").write_text('{"plan": {"count": "many"}}')

    assert await lifecycle.down(folder)
    assert not folder.exists()


async def test_a_folder_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path):
    folder = tmp_path / ("x" * 100)

    with pytest.raises(MachineError, match="use a shorter folder"):
        await lifecycle.up(folder, Plan(), Steps(io.StringIO()))

    assert not folder.exists()


def test_what_the_processes_said_last_is_told_when_a_lab_does_not_come_up(tmp_path):
    (tmp_path / "n2").mkdir()
    (tmp_path / "n2" / "agent.log").write_text("".join(f"line {number}\n" for number in range(9)))
    (tmp_path / "n2" / "bgp.log").write_text("")

    said = lifecycle._last_words(Lab(tmp_path, Plan()))

    assert said.splitlines() == [f"n2 agent: line {number}" for number in range(4, 9)]
