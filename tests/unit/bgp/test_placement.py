"""What becomes of the file while it is checked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from calipy.bgp import installation, placement
from calipy.bgp.peers import Peer, Topology
from calipy.bgp.placement import Placement


def topology(*hosts: int) -> Topology:
    peers = [
        Peer(name=f"Mesh_10_9_0_{host}", address=f"10.9.0.{host}", as_number=1, local_address="10.9.0.1", local_as=1)
        for host in hosts
    ]
    return Topology(node="me", router_id="10.9.0.1", peers=tuple(peers))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each text that is to be installed."""
    texts: list[str] = []
    real = installation.install

    async def install(path: Path, text: str, *others: Any) -> bool:
        texts.append(text)
        return await real(path, text, *others)

    monkeypatch.setattr(installation, "install", install)
    return texts


async def first_placed(folder: Path) -> Topology:
    """What the first file that is put in place says, if there is another wish while it is checked."""
    placed = asyncio.Event()
    file = Placement(folder, placed.set)
    file.want(topology(2), {})
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(file.run())
        for _ in range(5):
            await asyncio.sleep(0)
        assert (folder / "exabgp.conf.new").exists()
        file.want(topology(2, 3), {})
        await placed.wait()
        task.cancel()
    assert file.placed is not None
    return file.placed.topology


async def test_what_is_wanted_while_a_file_is_checked_overtakes_it(
    tmp_path: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_OVERTAKEN_MOST_S", 600.0)  # on a busy machine a check takes longer than its limit
    assert await first_placed(tmp_path) == topology(2, 3)
    assert len(checked) == 2
    assert (tmp_path / "exabgp.conf").read_text() == checked[1]
    assert not (tmp_path / "exabgp.conf.new").exists()


async def test_a_file_gives_way_for_a_while_only(
    tmp_path: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_OVERTAKEN_MOST_S", 0.0)
    assert await first_placed(tmp_path) == topology(2)
    assert (tmp_path / "exabgp.conf").read_text() == checked[0]
