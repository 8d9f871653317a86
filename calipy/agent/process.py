"""The agent as a process: settings in, signals, exit status out. SIGTERM ends it and removes nothing.

Half of an agent's start is the import of its parts. `first` comes before that: what is imported at the top of this
module is what it needs, and no more.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from calipy import logs
from calipy.agent.first import first
from calipy.resources.felix_configurations import Value, from_file, from_variables
from calipy.settings import Settings, read, without_effect

if TYPE_CHECKING:
    from calipy.agent.main import Agent

log = logging.getLogger("calipy.agent")


def run(log_level: str | None = None, log_format: str | None = None) -> int:
    """Runs the agent until a signal ends it; its exit status: 0 for SIGTERM, 1 where a setting is wrong."""
    try:
        settings = read(os.environ)
        style = log_format or settings.log_format
        logs.configure(log_level or settings.log_level or "info", style)
        process = felix_settings(settings)
        log.info("the agent of node %s starts", settings.node)
        for sentence in without_effect(os.environ):
            log.warning("%s", sentence)
        begun = first(settings, process)

        from calipy.node import bootstrap

        for family, pool in settings.pools.items():
            bootstrap.judged(family, pool)
    except (OSError, ValueError) as error:
        print(f"calipy agent: {error}", file=sys.stderr)
        return 1
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from calipy.agent.main import Agent

    gc.freeze()  # what is imported stays: the collector would hold the loop for longer than all else does
    with ThreadPoolExecutor(1, "kernel") as thread:
        agent = Agent(settings, process, thread, begun, log_level=log_level or settings.log_level)
        return asyncio.run(_until_signal(agent))


def felix_settings(settings: Settings) -> Mapping[str, Mapping[str, Value]]:
    """Felix's parameters from file and environment. Raises ValueError naming the wrong one, OSError for a file that
    can't be read."""
    layers: dict[str, Mapping[str, Value]] = {}
    if settings.felix_file.exists():
        try:
            layers["file"], unknown = from_file(settings.felix_file.read_text(errors="replace"))
        except ValueError as error:
            raise ValueError(f"{settings.felix_file}: {error}") from error
        for name in unknown:
            log.warning("%s: %s is no parameter of Felix; it is ignored", settings.felix_file, name)
    layers["environment"], unknown = from_variables(settings.felix)
    for name in unknown:
        log.warning("environment variable %s is no parameter of Felix; it is ignored", name)
    return layers


async def _until_signal(agent: Agent) -> int:
    """0 after SIGTERM or SIGINT, and where the settings ask for a warm restart."""
    import asyncio

    from calipy.agent.live import WarmRestart

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(agent.run())
            await stop.wait()
            await agent.farewell()
            task.cancel()
    except* WarmRestart as ended:
        log.warning("%s", _innermost(ended))
    return 0


def _innermost(error: BaseException) -> BaseException:
    """The first error in groups of groups."""
    return _innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
