"""What an agent does before it imports all the rest: it sees whether it is the only one, and closes what is open.

Whatever can't be done at once is left to `main`, which says why and tries again: a second agent waits for the first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from msgspec import Struct

from calipy.agent.alone import FILE, Lock
from calipy.felix.calc.configuration import merge
from calipy.felix.drivers.nftables import NftablesDriver, open_driver
from calipy.felix.guard import guard
from calipy.resources.felix_configurations import Value
from calipy.settings import Settings

log = logging.getLogger("calipy.agent")


class First(Struct, frozen=True, gc=False):
    """What has come of it; None where it can't be had yet."""

    lock: Lock | None = None
    nftables: NftablesDriver | None = None


def first(settings: Settings, process: Mapping[str, Mapping[str, Value]]) -> First:
    """Locks the run folder; then takes the table over, or makes it with the closed skeleton in it."""
    try:
        lock = Lock(settings.run_folder / FILE)
        if not lock.take():
            return First(lock)
    except OSError as error:
        log.debug("the lock can't be had yet: %s", error)
        return First()
    try:
        driver = open_driver()
    except OSError as error:
        log.debug("there is no nf_tables yet: %s", error)
        return First(lock)
    try:
        guard(driver, merge(settings.node, (), {}, process))
    except OSError as error:
        log.debug("the table can't be had yet: %s", error)
    return First(lock, driver)
