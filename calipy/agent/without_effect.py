"""What is configured and has no effect on a CalIPy node: told once."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from calipy.agent.feed import Feed
from calipy.resources import felix_configurations, ip_pools
from calipy.resources.felix_configurations import FelixConfiguration, without_effect
from calipy.resources.ip_pools import IPPool

log = logging.getLogger("calipy.agent")


class WithoutEffect:
    """Tells of it."""

    def __init__(self) -> None:
        self._fields: dict[str, tuple[str, ...]] = {}
        self._pools: set[str] = set()

    def follow(self, feed: Feed) -> None:
        """Looks at what is configured now and later."""

        def look(kinds: frozenset[str]) -> None:
            if felix_configurations.KIND.name in kinds:
                self.fields(feed.all(felix_configurations.KIND))
            if ip_pools.KIND.name in kinds:
                self.encapsulation(feed.pools())

        feed.listen(look)

    def fields(self, configurations: Iterable[FelixConfiguration]) -> None:
        """Fields of FelixConfiguration that nothing here reads."""
        for configuration in configurations:
            name, idle = configuration.metadata.name, without_effect(configuration)
            if idle and self._fields.get(name) != idle:
                log.warning("FelixConfiguration/%s: nothing reads %s: CalIPy has no such part", name, ", ".join(idle))
            self._fields[name] = idle

    def encapsulation(self, pools: Iterable[IPPool]) -> None:
        """Pools with IPIP."""
        for pool in pools:
            if pool.spec.ipip_mode == "Never" or pool.metadata.name in self._pools:
                continue
            self._pools.add(pool.metadata.name)
            log.warning(
                "IPPool/%s: ipipMode %s has no effect: its blocks are routed without encapsulation; set vxlanMode "
                "where the network between nodes can't route them",
                pool.metadata.name,
                pool.spec.ipip_mode,
            )
