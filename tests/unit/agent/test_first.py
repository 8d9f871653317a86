"""What an agent does first waits for nothing that it doesn't need."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LOADED = "import sys, calipy.__main__, calipy.agent; print(*sys.modules)"


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", _LOADED], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "name",
    [
        "aiohttp", "asyncio", "calipy.agent.main", "calipy.datastore", "calipy.felix.dataplane", "calipy.ipam",
        "concurrent.futures", "prometheus_client", "sqlite3",
    ],
)  # fmt: skip
def test_the_skeleton_stands_before_this_is_imported(loaded: set[str], name: str) -> None:
    assert "calipy.felix.guard" in loaded
    assert name not in loaded
