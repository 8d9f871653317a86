"""The lab's folder: whose it is, and who may build or remove."""

from __future__ import annotations

import pytest

from calipy.console.failures import Failure
from calipy.lab import folders
from calipy.lab.cluster import Lab
from calipy.lab.folders import Plate
from calipy.lab.topology import Plan


def test_where_the_lab_lies():
    assert str(folders.folder_from({})) == "/run/calipy-lab"
    assert str(folders.folder_from({"CALIPY_LAB": "/run/other"})) == "/run/other"
    with pytest.raises(Failure, match="CALIPY_LAB 'lab': is not an absolute path"):
        folders.folder_from({"CALIPY_LAB": "lab"})


def test_a_lab_is_found_again_as_it_was_asked_for(tmp_path):
    plan = Plan(count=5, encapsulation="vxlan", families="ipv4")
    folders.write_plate(tmp_path, Plate(plan=plan, complete=True))

    assert Lab.running(tmp_path).plan == plan


@pytest.mark.parametrize("complete", [None, False])
def test_no_lab_says_how_to_start_one(complete, tmp_path):
    if complete is not None:
        folders.write_plate(tmp_path, Plate(plan=Plan(), complete=complete))

    with pytest.raises(Failure, match="calipy lab up"):
        Lab.running(tmp_path)


def test_one_builds_at_a_time(tmp_path):
    with (
        folders.claimed(tmp_path),
        pytest.raises(Failure, match="another command is building"),
        folders.claimed(tmp_path),
    ):
        pass
    with folders.claimed(tmp_path):
        pass
