"""node status: what the agent on the node's socket says, in calicoctl's tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from calipy.ctl.node_status import lines
from calipy.explain.query import serve
from calipy.explain.report import NodeReport, SessionReport

Ctl = Callable[..., Result]
NOON = datetime(2026, 1, 2, 12, 0, 0)


def session(peer: str, **more: object) -> SessionReport:
    fields = {"kind": "mesh", "as_number": 64512, "family": 4, "state": "up", "since_s": 90.0, **more}
    return SessionReport(name=peer, peer=peer, **fields)  # type: ignore[arg-type]


REPORT = NodeReport(
    node="n1",
    in_sync=True,
    sessions=(
        session("192.0.2.2"),
        session("192.0.2.65", kind="global", state="down", reason="hold timer expired", since_s=90_000),
        session("2001:db8::2", kind="node", state="connected", family=6),
    ),
)
TABLES = """\
Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+------------+-------------------------+
| PEER ADDRESS |     PEER TYPE     | STATE |   SINCE    |          INFO           |
+--------------+-------------------+-------+------------+-------------------------+
| 192.0.2.2    | node-to-node mesh | up    | 11:58:30   | Established             |
| 192.0.2.65   | global            | start | 2026-01-01 | Idle hold timer expired |
+--------------+-------------------+-------+------------+-------------------------+

IPv6 BGP status
+--------------+---------------+-------+----------+---------+
| PEER ADDRESS |   PEER TYPE   | STATE |  SINCE   |  INFO   |
+--------------+---------------+-------+----------+---------+
| 2001:db8::2  | node specific | start | 11:58:30 | Connect |
+--------------+---------------+-------+----------+---------+

"""


def test_sessions_stand_in_calicoctls_tables() -> None:
    assert "".join(f"{line}\n" for line in lines(REPORT, NOON)) == TABLES


def test_a_node_without_peers_says_so() -> None:
    assert list(lines(NodeReport(node="n1", in_sync=True), NOON)) == [
        "Calico process is running.", "", "IPv4 BGP status", "No IPv4 peers found.", "",
        "IPv6 BGP status", "No IPv6 peers found.", "",
    ]  # fmt: skip


def test_what_is_wrong_is_told_first() -> None:
    report = NodeReport(
        node="n1", in_sync=False, obstacle="no pool", problems={"bgp": "no session is up"},
        degraded={"felix": "x"}, refused={"IPPool/a": "overlaps"},
    )  # fmt: skip
    assert list(lines(report, NOON))[1:6] == [
        "The kernel doesn't hold everything yet.",
        "Pods can't be attached: no pool",
        "Not ready: bgp: no session is up",
        "Degraded: felix: x",
        "Refused: IPPool/a: overlaps",
    ]


@pytest.fixture
async def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """An agent's socket where the command looks for it."""
    monkeypatch.setenv("CALIPY_RUN_DIR", str(tmp_path))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(tmp_path / "query.sock", {"status": lambda: REPORT}))
        await asyncio.sleep(0)  # it listens with its first step
        yield
        serving.cancel()


async def test_the_agent_is_asked(agent: None, ctl: Ctl) -> None:
    table, document = [await asyncio.to_thread(ctl, "node", "status", *more) for more in ([], ["-o", "json"])]
    assert (table.exit_code, table.stderr) == (0, "")
    assert "| 192.0.2.2    | node-to-node mesh | up    |" in table.stdout
    assert msgspec.json.decode(document.stdout, type=NodeReport) == REPORT


def test_a_node_without_agent_is_a_failure(ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIPY_RUN_DIR", str(tmp_path))
    result = ctl("node", "status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: Calico process is not running: {tmp_path}/query.sock: No such file or directory: is the agent"
        " running?; start it, or say with CALIPY_RUN_DIR where its files are\n"
    )
