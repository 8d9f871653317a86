"""What is configured and has no effect on a CalIPy node: told once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from calipy.agent.feed import Feed
from calipy.resources import bgp_configurations, felix_configurations, ip_pools
from calipy.resources.bgp_configurations import BGPConfiguration
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Key, Kind, R

log = logging.getLogger("calipy.agent")


class WithoutEffect:
    """Tells of it."""

    def __init__(self) -> None:
        self._fields: dict[Key, tuple[str, ...]] = {}
        self._pools: set[str] = set()

    def follow(self, feed: Feed) -> None:
        """Looks at what is configured now and later."""

        def look(kinds: frozenset[str]) -> None:
            if felix_configurations.KIND.name in kinds:
                self.felix_fields(feed.all(felix_configurations.KIND))
            if bgp_configurations.KIND.name in kinds:
                self.bgp_fields(feed.all(bgp_configurations.KIND))
            if ip_pools.KIND.name in kinds:
                self.encapsulation(feed.pools())

        feed.listen(look)

    def felix_fields(self, configurations: Iterable[FelixConfiguration]) -> None:
        """Fields of FelixConfiguration that nothing here reads."""
        self._tell(felix_configurations.KIND, configurations, felix_configurations.without_effect)

    def bgp_fields(self, configurations: Iterable[BGPConfiguration]) -> None:
        """Fields of BGPConfiguration that nothing here reads."""
        self._tell(bgp_configurations.KIND, configurations, bgp_configurations.without_effect)

    def _tell(self, kind: Kind[R], configurations: Iterable[R], idle_in: Callable[[R], tuple[str, ...]]) -> None:
        for configuration in configurations:
            key, idle = kind.key(configuration), idle_in(configuration)
            if idle and self._fields.get(key) != idle:
                log.warning("%s: nothing reads %s: CalIPy has no such part", key, ", ".join(idle))
            self._fields[key] = idle

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
