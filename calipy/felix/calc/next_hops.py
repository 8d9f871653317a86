"""Resolution of next hops that aren't on a connected subnet, through the main table's routes of others.

The kernel takes a gateway only on a link's own subnet. A next hop further away (an iBGP peer behind a router) is
looked up once, by longest prefix, among routes that aren't ours: so a learned route never resolves through another.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from calipy.model.links import ForeignRoute, Link
from calipy.model.routes import NextHop

_WIDTH = {4: 32, 6: 128}


class Resolver:
    """Longest-prefix match over a fixed set of foreign routes and the links that they use."""

    def __init__(self, routes: Iterable[ForeignRoute], links: Mapping[int, Link]) -> None:
        self._links = links
        self._tables: dict[int, dict[int, dict[int, ForeignRoute]]] = {4: {}, 6: {}}
        for route in sorted(routes, key=lambda route: (-route.metric, route.prefix)):
            network = ipaddress.ip_network(route.prefix)
            bits = int(network.network_address) >> (_WIDTH[network.version] - network.prefixlen)
            self._tables[network.version].setdefault(network.prefixlen, {})[bits] = route
        self._lengths = {family: sorted(table, reverse=True) for family, table in self._tables.items()}

    def resolve(self, address: str) -> tuple[NextHop, ...] | str:
        """The ways to `address` as the kernel takes them, or the reason why there is none."""
        target = ipaddress.ip_address(address)
        table, width = self._tables[target.version], _WIDTH[target.version]
        for length in self._lengths[target.version]:
            route = table[length].get(int(target) >> (width - length))
            if route is not None:
                return self._ways(address, route)
        return f"no route leads to the next hop {address}"

    def _ways(self, address: str, route: ForeignRoute) -> tuple[NextHop, ...] | str:
        ways = []
        for gateway, index in route.next_hops:
            link = self._links.get(index)
            if link is not None and link.up:
                ways.append(NextHop(gateway or address, link.name, index))
        if not ways:
            return f"the way to the next hop {address} ({route.prefix}) leads over links that are down or gone"
        return tuple(sorted(ways))
