"""Felix put together: calculation, dataplane, drivers and monitor of one node, in one network namespace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from calipy.felix.calc.change import Change
from calipy.felix.calc.configuration import merge
from calipy.felix.calc.graph import Graph
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import Event
from calipy.felix.calculator import Calculator
from calipy.felix.dataplane import Area, Dataplane
from calipy.felix.drivers.links import LinksDriver
from calipy.felix.drivers.monitor import Monitor
from calipy.felix.drivers.nftables import NftablesDriver, TableOwned
from calipy.felix.drivers.routes import RoutesDriver
from calipy.felix.drivers.sysctls import SysctlsDriver
from calipy.felix.endpoints import Endpoints
from calipy.felix.guard import guard
from calipy.felix.plans import SYSCTLS_LEFTOVER, RoutePlanner, SysctlPlanner, TunnelPlanner, route_name
from calipy.felix.policy_times import PolicyTimes
from calipy.felix.rules.compile import RulesPlanner
from calipy.model.links import Link
from calipy.model.routes import RouteKey
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket
from calipy.resources.felix_configurations import Value

log = logging.getLogger("calipy.felix")
_OWNED_RETRY_S = 0.5


class Engine:
    """One node's Felix; `run` of its calculator and dataplane, and `start` of its monitor, are the caller's to call."""

    def __init__(
        self,
        node: str,
        process: Mapping[str, Mapping[str, Value]],
        thread: ThreadPoolExecutor,
        *,
        sysctls: Path = Path("/proc/sys/net"),
        namespace: int | None = None,
        own_table: bool = True,
        nftables: NftablesDriver | None = None,
    ) -> None:
        """`process` are Felix's settings from file and environment; `sysctls` is where /proc/sys/net can be written;
        `namespace` is a descriptor, None = this one; `own_table` False leaves our table open to others; `nftables` is a
        driver that may have taken the table already, None = one is made."""
        self.settings = merge(node, (), {}, process)
        """Those in force."""
        self._socket = NetlinkSocket.open(ROUTE, namespace=namespace)
        self.nftables = nftables or NftablesDriver(NetlinkSocket.open(NETFILTER, namespace=namespace), own=own_table)
        self.links = LinksDriver(self._socket, namespace)
        self.routes = RoutesDriver(self._socket, lambda index: self.monitor.owns_routes(index))
        self.planner = RulesPlanner()
        self.areas = [
            Area(self.nftables, self.planner),
            Area(self.links, TunnelPlanner()),
            Area(self.routes, RoutePlanner()),
            Area(SysctlsDriver(self._socket, sysctls, namespace), SysctlPlanner()),
        ]
        self.dataplane = Dataplane(self.areas, thread)
        self.calculator = Calculator(Graph(node, process), self._submit)
        self.dataplane.hold(SYSCTLS_LEFTOVER, "left as it is")
        self.policy_times = PolicyTimes()
        self.dataplane.on_settled = self._settled
        self.monitor = Monitor(self._news, self.dataplane.notice, self, self.links, self.settings, namespace)
        self.monitor.own_ports |= {self._socket.port, self.nftables.port}
        self.endpoints = Endpoints(self.calculator, self.dataplane)
        self.on_shaken: Callable[[Link], None] = lambda link: None
        """Called with a workload's link that has gone down or lost an address: CNI's to mend."""
        self.on_news: Callable[[Sequence[Event]], None] = lambda events: None
        """Called with all that the kernel tells of links, addresses and foreign routes."""
        self.on_rules: Callable[[Change], None] = lambda change: None
        """Called with each change when the kernel has the rules that follow from it, as far as it takes them."""
        self.on_settings: Callable[[FelixSettings], None] = lambda settings: None
        """Called with the settings in force whenever they have changed."""

    async def guard(self) -> None:
        """Takes the table over, or makes it with the closed skeleton in it. Waits while another agent owns it: nobody
        tells when that ends."""
        told = ""
        while True:
            try:
                guard(self.nftables, self.settings)
                return
            except TableOwned as error:
                if str(error) != told:
                    told = str(error)
                    log.error("%s; waiting", error.strerror)
                await asyncio.sleep(_OWNED_RETRY_S)

    def adopt(self, settings: FelixSettings) -> None:
        """Settings that hold from the start, FelixConfiguration objects included; before the monitor starts."""
        self.settings = settings
        self.monitor.follow(settings)

    def _news(self, events: Sequence[Event]) -> None:
        self.calculator.post(events)
        self.on_news(events)

    def _submit(self, change: Change) -> int:
        settings = change.settings
        if settings is not None:
            before, self.settings = self.settings, settings
            self.monitor.follow(settings)
            if settings.remove_external_routes and not before.remove_external_routes:
                self.dataplane.notice("routes", "removeExternalRoutes was turned on")
            self.on_settings(settings)
        return self.dataplane.submit(change)

    def _settled(self, area: Area, change: Change | None) -> None:
        if area.driver is self.nftables:
            self.policy_times.settled(area, change)
            if change is not None:
                self.on_rules(change)

    def lost_routes(self, index: int) -> None:
        """Routes over a link went when it fell."""
        self.dataplane.vanished("routes", self.routes.over(index))

    def lost_route(self, key: RouteKey) -> None:
        """The kernel took a route away."""
        self.dataplane.vanished("routes", [route_name(key)])

    def shaken(self, link: Link) -> None:
        """A workload's link isn't as CNI left it, or about to go."""
        self.on_shaken(link)

    def close(self) -> None:
        """Lets go of the sockets that it opened; the kernel's state stays."""
        self.monitor.close()
        self._socket.close()
        self.links.close()
        self.nftables.close()
