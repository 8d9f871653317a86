"""The lab's folder: whose it is, and who may build or remove."""

from __future__ import annotations

import io

import pytest

from calipy.console.failures import Failure
from calipy.console.progress import Steps
from calipy.lab import cluster
from calipy.lab.cluster import Lab, Plate
from calipy.lab.machines import MachineError
from calipy.lab.topology import Plan


def test_where_the_lab_lies():
    assert str(cluster.folder_from({})) == "/run/calipy-lab"
    assert str(cluster.folder_from({"CALIPY_LAB": "/run/other"})) == "/run/other"
    with pytest.raises(Failure, match="CALIPY_LAB 'lab': is not an absolute path"):
        cluster.folder_from({"CALIPY_LAB": "lab"})


def test_a_lab_is_found_again_as_it_was_asked_for(tmp_path):
    plan = Plan(count=5, encapsulation="vxlan", families="ipv4")
    cluster._write_plate(tmp_path, Plate(plan=plan, complete=True))

    assert Lab.running(tmp_path).plan == plan


@pytest.mark.parametrize("complete", [None, False])
def test_no_lab_says_how_to_start_one(complete, tmp_path):
    if complete is not None:
        cluster._write_plate(tmp_path, Plate(plan=Plan(), complete=complete))

    with pytest.raises(Failure, match="calipy lab up"):
        Lab.running(tmp_path)


async def test_somebody_else_s_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(Failure, match="set CALIPY_LAB to another one"):
        await cluster.down(tmp_path)

    assert (tmp_path / "thesis.txt").read_text() == "years of work"


async def test_what_a_crash_has_left_is_removed(tmp_path):
    folder = tmp_path / "lab"
    (folder / "n1").mkdir(parents=True)
    cluster._write_plate(folder, Plate(plan=Plan()))

    assert await cluster.down(folder)
    assert not folder.exists()
    assert not await cluster.down(folder)


async def test_a_plate_that_can_t_be_read_does_not_keep_a_lab_from_being_removed(tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "lab.json").write_text('{"plan": {"count": "many"}}')

    assert await cluster.down(folder)
    assert not folder.exists()


async def test_a_folder_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path):
    folder = tmp_path / ("x" * 100)

    with pytest.raises(MachineError, match="use a shorter folder"):
        await cluster.up(folder, Plan(), Steps(io.StringIO()))

    assert not folder.exists()


def test_one_builds_at_a_time(tmp_path):
    with (
        cluster.claimed(tmp_path),
        pytest.raises(Failure, match="another command is building"),
        cluster.claimed(tmp_path),
    ):
        pass
    with cluster.claimed(tmp_path):
        pass


def test_what_the_processes_said_last_is_told_when_a_lab_does_not_come_up(tmp_path):
    (tmp_path / "n2").mkdir()
    (tmp_path / "n2" / "agent.log").write_text("".join(f"line {number}\n" for number in range(9)))
    (tmp_path / "n2" / "bgp.log").write_text("")

    said = cluster._last_words(Lab(tmp_path, Plan()))

    assert said.splitlines() == [f"n2 agent: line {number}" for number in range(4, 9)]


async def test_waiting_tells_the_last_reason():
    async def look():
        return "the wind is wrong"

    with pytest.raises(Failure, match=r"sailing: the wind is wrong \(after 0 s\)"):
        await cluster.eventually(look, "sailing", timeout_s=0)
