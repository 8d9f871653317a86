"""`calipy health` against a real server: exit status and words."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from calipy.bgp.pipe import ALIVE, write_sign
from calipy.node import probe
from calipy.node.health import health_application, serving
from calipy.telemetry import Health


class Agent:
    """An agent's health port, and the probe."""

    def __init__(self, health: Health, port: int, folder: Path) -> None:
        self.health, self.folder = health, folder
        self.environment = {"FELIX_HEALTHPORT": str(port), "CALIPY_BGP_DIR": str(folder)}

    async def probed(self, *options: str) -> list[str]:
        return await asyncio.to_thread(lambda: list(probe.problems(options, self.environment)))


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    health = Health()
    health.ready |= {"FelixStartup": lambda: "", "BGP": lambda: ""}
    health.watch("EventLoop", lambda: 0.0, 30.0)
    async with serving(health_application(health), ("localhost", 0)) as bound:
        yield Agent(health, bound[0][1], tmp_path)


ALL = ("--felix-ready", "--felix-live", "--bgp-ready", "--bgp-live")


async def test_a_node_that_is_well(agent: Agent) -> None:
    assert await agent.probed(*ALL) == []


async def test_each_question_is_answered_for_itself(agent: Agent) -> None:
    agent.health.ready["BGP"] = lambda: "no session is up"
    (said,) = await agent.probed(*ALL)
    assert said.startswith("bgp is not ready: the agent answers 503 Service Unavailable\n+--")
    assert "| no session is up |" in said
    agent.health.ready |= {"BGP": lambda: "", "FelixStartup": lambda: "the agent is starting"}
    (said,) = await agent.probed(*ALL)
    assert said.startswith("felix is not ready: ")
    agent.health.ready["FelixStartup"] = lambda: ""
    agent.health.watch("EventLoop", lambda: 31.0, 30.0)
    (said,) = await agent.probed(*ALL)
    assert said.startswith("felix is not live: ")
    assert "no sign of life for 31 s (limit 30 s)" in said


# when the sidecar gave its sign of life, seconds ago, and for how long that holds | what is said
SIGNS = [(5, 30, ""), (31, 30, "no sign of life in {path} for 31 s (limit 30 s)")]


@pytest.mark.parametrize(("ago_s", "limit_s", "said"), SIGNS)
async def test_the_sidecars_sign_of_life(agent: Agent, ago_s: float, limit_s: float, said: str) -> None:
    path = agent.folder / ALIVE
    write_sign(str(path), time.clock_gettime(time.CLOCK_BOOTTIME) - ago_s, limit_s)
    assert await agent.probed("--bgp-live") == ([f"bgp is not live: {said.format(path=path)}"] if said else [])


async def test_a_sign_that_is_none_is_told(agent: Agent) -> None:
    (agent.folder / ALIVE).write_text("soon\n")
    (said,) = await agent.probed("--bgp-live")
    assert said.startswith(f"bgp is not live: {agent.folder}/{ALIVE} can't be read: ")


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    for port, reason in (("1", "Connection refused"), ("x", "invalid literal")):
        assert probe.main((), {"FELIX_HEALTHPORT": port}) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition(":")[0] for line in lines] == ["felix is not ready", "felix is not live"]
        assert f"no answer from localhost, port {port}: {reason}" in lines[0]


@pytest.mark.parametrize(
    ("options", "status", "said"), [(("--help",), 0, "Usage: "), (("--bird-ready",), 2, "no such option: --bird-ready")]
)
@pytest.mark.parametrize("program", [("-m", "calipy"), ("-c", "from calipy.start import main; main()")])
def test_the_command(program: Sequence[str], options: Sequence[str], status: int, said: str) -> None:
    done = subprocess.run([sys.executable, *program, "health", *options], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert said in done.stdout + done.stderr


def test_a_probe_imports_next_to_nothing() -> None:
    code = "import sys; sys.argv[1:] = ['health', '--help']\nfrom calipy.start import main\ntry: main()\n"
    code += (
        "except SystemExit: print([name for name in ('click', 'asyncio', 'msgspec', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
