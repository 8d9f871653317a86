"""The sidecar's waiting, and the command that tells whether it lives."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from calipy.bgp.pipe import ALIVE, write_sign
from calipy.bgp.sidecar import CONFIGURATION, liveness_command, wait_for


@pytest.mark.parametrize(
    ("age_s", "limit_s", "lives"), [(0, 3, True), (2, 3, True), (5, 3, False), (5, 30, True), (40, 30, False)]
)
def test_a_sign_of_life_gets_old(tmp_path: Path, age_s: float, limit_s: float, lives: bool) -> None:
    folder = tmp_path / "a folder's name"
    folder.mkdir()
    write_sign(str(folder / ALIVE), time.clock_gettime(time.CLOCK_BOOTTIME) - age_s, limit_s)
    done = subprocess.run(liveness_command(folder), check=False, capture_output=True, text=True)
    assert (done.returncode == 0) == lives
    assert done.stderr == ""


def test_a_sidecar_that_waits_for_its_configuration_lives(tmp_path: Path) -> None:
    assert subprocess.run(liveness_command(tmp_path), check=False).returncode == 0


def test_a_sign_that_says_nothing_is_none(tmp_path: Path) -> None:
    (tmp_path / ALIVE).write_text("")
    assert subprocess.run(liveness_command(tmp_path), check=False).returncode != 0


def test_it_waits_until_the_file_is_renamed_into_place(tmp_path: Path) -> None:
    path = tmp_path / CONFIGURATION
    waiting = threading.Thread(target=wait_for, args=(path,), daemon=True)
    waiting.start()
    fresh = tmp_path / "other"
    fresh.write_text("process")
    waiting.join(0.05)
    assert waiting.is_alive()
    fresh.rename(path)
    waiting.join(5)
    assert not waiting.is_alive()
    wait_for(path)
