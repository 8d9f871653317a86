"""Felix put together: calculation, dataplane, drivers and monitor of one node, in one network namespace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from calipy.felix.calc.configuration import merge
from calipy.felix.calc.graph import Graph
from calipy.felix.calculator import Calculator
from calipy.felix.dataplane import Area, Dataplane
from calipy.felix.drivers.links import LinksDriver
from calipy.felix.drivers.monitor import Monitor
from calipy.felix.drivers.nftables import NftablesDriver
from calipy.felix.drivers.routes import RoutesDriver
from calipy.felix.drivers.sysctls import SysctlsDriver
from calipy.felix.endpoints import Endpoints
from calipy.felix.plans import SYSCTLS_LEFTOVER, RoutePlanner, SysctlPlanner, TunnelPlanner, route_name
from calipy.felix.rules.compile import RulesPlanner
from calipy.model.links import Link
from calipy.model.routes import RouteKey
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket
from calipy.resources.felix_configurations import Value


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
    ) -> None:
        """`process` are Felix's settings from file and environment; `sysctls` is where /proc/sys/net can be written;
        `namespace` is a descriptor, None = this one."""
        settings = merge(node, (), {}, process)
        self._socket = NetlinkSocket.open(ROUTE, namespace=namespace)
        self.nftables = NftablesDriver(NetlinkSocket.open(NETFILTER, namespace=namespace))
        self.links = LinksDriver(self._socket)
        self.routes = RoutesDriver(self._socket)
        self.planner = RulesPlanner()
        self.areas = [
            Area(self.nftables, self.planner),
            Area(self.links, TunnelPlanner()),
            Area(self.routes, RoutePlanner()),
            Area(SysctlsDriver(self._socket, sysctls, namespace), SysctlPlanner()),
        ]
        self.dataplane = Dataplane(self.areas, thread)
        self.calculator = Calculator(Graph(node, process), self.dataplane.submit)
        self.dataplane.hold(SYSCTLS_LEFTOVER, "left as it is")
        self.monitor = Monitor(
            self.calculator.post, self.dataplane.notice, self, settings.interface_prefixes, namespace=namespace
        )
        self.monitor.own_deletions = self.links.deleted
        self.monitor.own_ports |= {self._socket.port, self.nftables.port}
        self.routes.workload_indices = self.monitor.workload_links
        self.endpoints = Endpoints(self.calculator, self.dataplane)
        self.on_shaken: Callable[[Link], None] = lambda link: None
        """Called with a workload's link that has gone down or lost an address: CNI's to mend."""

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
        self.nftables.close()
