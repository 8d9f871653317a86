"""The session without ExaBGP."""

from __future__ import annotations

import asyncio
from pathlib import Path

from calipy.bgp.peers import Topology
from calipy.bgp.session import Session


async def test_without_peers_nobody_is_waited_for_whenever_that_becomes_known(tmp_path: Path) -> None:
    told = asyncio.Event()
    session = Session(tmp_path, lambda routes: None, told.set)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(session.run())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not told.is_set()
        session.configure(Topology(node="me", router_id="10.9.0.1"), {}, {})
        await asyncio.wait_for(told.wait(), 5)
        task.cancel()
