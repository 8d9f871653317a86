"""What is configured and has no effect on a CalIPy node: told once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from calipy.agent.feed import IDLE, Feed
from calipy.resources import bgp_configurations, felix_configurations, ip_pools, kinds
from calipy.resources.bgp_configurations import BGPConfiguration
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Key, Kind, R

log = logging.getLogger("calipy.agent")

_STAGED = "staged policies are kept, and not tried out"
_WHY = {
    "HostEndpoint": "policies govern pods alone",
    "StagedNetworkPolicy": _STAGED,
    "StagedGlobalNetworkPolicy": _STAGED,
    "StagedKubernetesNetworkPolicy": _STAGED,
    "CalicoNodeStatus": "nobody writes its status; `pycalicoctl node status` asks a node itself",
}
_MOST_NAMED = 5


class WithoutEffect:
    """Tells of it."""

    def __init__(self) -> None:
        self._fields: dict[Key, tuple[str, ...]] = {}
        self._pools: set[str] = set()
        self._objects: dict[str, frozenset[Key]] = {}

    def follow(self, feed: Feed) -> None:
        """Looks at what is configured now and later."""

        def look(changed: frozenset[str]) -> None:
            if felix_configurations.KIND.name in changed:
                self.felix_fields(feed.all(felix_configurations.KIND))
            if bgp_configurations.KIND.name in changed:
                self.bgp_fields(feed.all(bgp_configurations.KIND))
            if ip_pools.KIND.name in changed:
                self.encapsulation(feed.pools())
            for name in changed.intersection(IDLE):
                kind = kinds.BY_NAME[name]
                self.objects(name, map(kind.key, feed.all(kind)))

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

    def objects(self, kind: str, found: Iterable[Key]) -> None:
        """Objects of a kind that nothing here follows."""
        there = frozenset(found)
        fresh = sorted(there - self._objects.get(kind, frozenset()))
        self._objects[kind] = there
        if not fresh:
            return
        named, more = ", ".join(map(str, fresh[:_MOST_NAMED])), len(fresh) - _MOST_NAMED
        log.warning("%s%s: without effect: %s", named, f" and {more} more" if more > 0 else "", _WHY[kind])
