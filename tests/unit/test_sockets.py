"""Unix sockets that outlive a lack of descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from pathlib import Path

from calipy.sockets import accept, listen


async def test_a_connection_waits_while_there_is_no_descriptor_for_it(tmp_path: Path, caplog: object) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listen(tmp_path / "x.sock") as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(tmp_path / "x.sock"))
        free = os.dup(0)
        os.close(free)
        async with asyncio.TaskGroup() as group:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                taken = group.create_task(accept(listener))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not taken.done()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            with await asyncio.wait_for(taken, 5) as raw:
                assert not raw.getblocking()
        assert "a connection can't be taken now" in caplog.text  # type: ignore[attr-defined]
