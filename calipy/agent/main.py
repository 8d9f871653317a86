"""The agent's parts, in the order in which they come to life.

Policy first: the closed skeleton stands before the datastore is asked. Nothing else in the kernel is touched before the
store is in sync; then what earlier agents left is taken over. SIGTERM ends the process and removes nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from calipy import logs
from calipy.agent import figures
from calipy.agent.answers import Answers
from calipy.agent.bgp import Bgp
from calipy.agent.feed import Feed, watched
from calipy.agent.joints import FlushedFlows, ProgrammedEndpoints, TunnelAddresses, WorkloadLinks
from calipy.agent.live import LiveSettings, WarmRestart
from calipy.agent.whereabouts import Whereabouts
from calipy.cni import install, readiness, releases
from calipy.cni.attachments import Attachments
from calipy.cni.dispatch import Dispatcher
from calipy.cni.draws import AllocatedAddresses
from calipy.cni.needs import NodeFacts
from calipy.cni.pods import StoredPods
from calipy.cni.removals import Removals
from calipy.cni.server import Server
from calipy.cni.sites import Site
from calipy.cni.wires import Wires
from calipy.datastore.mirror import Mirror
from calipy.datastore.stores import NotFound, Store, StoreError
from calipy.explain import query
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import AddressGone, AddressSeen, Event, LinkSeen
from calipy.felix.drivers.conntrack import Conntrack
from calipy.felix.engine import Engine
from calipy.ipam.allocator import Allocator
from calipy.ipam.errors import IPAMError
from calipy.netlink.socket import NETFILTER, NetlinkSocket
from calipy.node import bootstrap, files, identity, mtu, tunnels
from calipy.node.health import Address, Listener, health_application, metrics_application
from calipy.resources import felix_configurations, ip_pools
from calipy.resources.felix_configurations import Value, from_file, from_variables
from calipy.resources.metadata import Refused
from calipy.settings import Settings, read
from calipy.telemetry import Health, Heartbeat, Metrics

log = logging.getLogger("calipy.agent")
_RETRY_S = 1.0
_CHECKPOINT_S = 5.0


def run(log_level: str | None = None, log_format: str | None = None) -> int:
    """Runs the agent until a signal ends it; its exit status: 0 for SIGTERM, 1 where a setting is wrong."""
    try:
        settings = read(os.environ)
        style = log_format or settings.log_format
        logs.configure(log_level or settings.log_level or "info", style)
        process = felix_settings(settings)
        for family, pool in settings.pools.items():
            bootstrap.default_pool(family, pool)
    except (OSError, ValueError) as error:
        print(f"calipy agent: {error}", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(1, "kernel") as thread:
        agent = Agent(settings, process, thread, log_level=log_level or settings.log_level)
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
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(agent.run())
            await stop.wait()
            task.cancel()
    except* WarmRestart as ended:
        log.warning("%s", _innermost(ended))
    return 0


def _innermost(error: BaseException) -> BaseException:
    """The first error in groups of groups."""
    return _innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class Agent:
    """One node's agent."""

    def __init__(
        self,
        settings: Settings,
        process: Mapping[str, Mapping[str, Value]],
        thread: ThreadPoolExecutor,
        *,
        log_level: str = "",
    ) -> None:
        """`log_level` holds whatever logSeverityScreen says; empty = that."""
        self.settings = settings
        self.live = LiveSettings(settings.node, process)
        self.live.changed = self._follow
        self.thread = thread
        self._log_level = log_level
        self.metrics, self.health, self.heartbeat = Metrics(), Health(), Heartbeat()
        self.metrics.host.labels(settings.node).set(1)
        self.engine = Engine(settings.node, process, thread, sysctls=settings.sysctl_folder)
        self.nftables, self.monitor = self.engine.nftables, self.engine.monitor
        self.areas, self.planner = self.engine.areas, self.engine.planner
        self.dataplane, self.calculator = self.engine.dataplane, self.engine.calculator
        self.endpoints = self.engine.endpoints
        self.dataplane.on_repair = self._repaired
        self.links = WorkloadLinks(self.endpoints, self.monitor.links, self.monitor.addresses_of, self._repaired)
        self.engine.on_shaken = self.links.shaken
        figures.publish_kernel(self.metrics, self.dataplane, self.areas, self.endpoints)
        self.calculator.pulse.ended = self.metrics.calculation_time.observe
        self.engine.on_settings = self.live.take
        self._told_mtu, self._untold = 0, ""
        self.obstacle = "the agent is starting"
        self.health.ready["FelixStartup"] = lambda: self.obstacle
        self._unsettled = ""
        """Why this node's blocks and tunnel addresses aren't as they should be."""
        self._told_ipip: set[str] = set()
        self.health.ready["IPAM"] = lambda: self._unsettled
        self.repairs: Counter[str] = Counter()
        self.listeners = (
            Listener(
                "health", lambda: health_application(self.health), self._health_address, "set healthPort or healthHost"
            ),
            Listener(
                "metrics",
                lambda: metrics_application(self.metrics),
                self._metrics_address,
                "set prometheusMetricsPort or prometheusMetricsHost",
            ),
        )
        self._follow(self.live.current)

    async def run(self) -> None:
        """Everything, without end."""
        async with asyncio.TaskGroup() as group:
            for listener in self.listeners:
                group.create_task(listener.run())
            await self._run(group)

    async def _run(self, group: asyncio.TaskGroup) -> None:
        await self.engine.guard()
        store = await self._open_store()
        await self.monitor.start()
        await self._introduce(store, group)
        mirror = Mirror(store, watched())
        self.feed = Feed(mirror, self.settings.node)
        self.feed.listen(self._warn)
        self.allocator = Allocator(store, self.settings.node, self.feed, time.time)
        self.bgp = Bgp(
            self.settings, store, self.feed, self.endpoints, self.dataplane, self.calculator.post, self.metrics
        )
        site = self._site(store)
        removals = Removals(site)
        self._report(mirror)
        group.create_task(self._measure_lag())
        group.create_task(self._keep_log_short())
        group.create_task(query.serve(self._path("query.sock"), self._answers().by_name()))
        group.create_task(Server(self._path("cni.sock"), Dispatcher(site, removals, self._observe)).run())
        group.create_task(
            readiness.keep(self._path("ready"), lambda: self.obstacle, self.settings.status_grace_period_s)
        )
        group.create_task(mirror.run())
        group.create_task(self.feed.run(self.calculator.post))
        await self.feed.in_sync.wait()
        attached = [entry.endpoint for entry in site.attachments if entry.endpoint and entry.state == "attached"]
        self.endpoints.restore(attached)
        if self.bgp.wanted:
            self.bgp.hold_leftovers()
            group.create_task(self.bgp.run())
        group.create_task(self.calculator.run())
        group.create_task(self.dataplane.run())
        group.create_task(self._resync())
        await self.dataplane.first_apply.wait()
        group.create_task(self._keep_tunnels(store))
        self._open_for_pods()
        group.create_task(releases.replay(removals, self._reconnections(mirror)))

    def _reconnections(self, mirror: Mirror) -> asyncio.Event:
        """Set whenever the store is back after it was away."""
        back, since_s = asyncio.Event(), 0.0

        def look(_: frozenset[str]) -> None:
            nonlocal since_s
            latest_s = max((found.since_s for found in mirror.connections.values() if found.up), default=0.0)
            if latest_s > since_s:
                since_s = latest_s
                back.set()

        self.feed.listen(look)
        return back

    # --- start-up ---

    async def _open_store(self) -> Store:
        from calipy.datastore.sqlite import SQLiteStore

        path = self._database()
        store: Store | None = None
        while True:
            try:
                store = store or await SQLiteStore.open(path)
                self.engine.adopt(await self.live.read(store))
                return store
            except StoreError as error:
                if str(error) != self.obstacle:
                    log.error("%s", error)
                self.obstacle = str(error)
                await asyncio.sleep(_RETRY_S)

    async def _introduce(self, store: Store, group: asyncio.TaskGroup) -> None:
        """First objects of the cluster, this node's own object, and where it is."""
        self.obstacle = "this node is not introduced yet"
        whereabouts = Whereabouts(store, self.settings, self.monitor, self.thread)
        self.health.ready["NodeAddress"] = lambda: whereabouts.problem
        self.engine.on_news = lambda events: whereabouts.moved() if self._is_of_host(events) else None
        await whereabouts.introduce()
        group.create_task(whereabouts.keep())
        files.put(self.settings.state_folder / "nodename", f"{self.settings.node}\n")
        self.obstacle = "the agent is starting"

    def _is_of_host(self, events: Sequence[Event]) -> bool:
        """Whether links other than workloads', or their addresses, have moved."""
        workloads = self.monitor.workload_links
        return any(
            (isinstance(event, AddressSeen | AddressGone) and event.address.index not in workloads)
            or (isinstance(event, LinkSeen) and event.link.index not in workloads)
            for event in events
        )

    def _site(self, store: Store) -> Site:
        kernel = Wires(self.settings.sysctl_folder)
        self.monitor.own_ports |= kernel.ports
        node = NodeFacts(
            name=self.settings.node,
            interface_prefix=self.live.current.interface_prefixes[0],
            mtu=self.pod_mtu,
            families=lambda: tuple(sorted({pool.family for pool in self.feed.pools()})),
            obstacle=lambda: self.obstacle,
        )
        return Site(
            node=node,
            addresses=AllocatedAddresses(self.allocator, self.settings.node, time.time),
            endpoints=ProgrammedEndpoints(self.endpoints),
            pods=StoredPods(store, self.settings.node, embedded=True),
            flows=FlushedFlows(Conntrack(NetlinkSocket.open(NETFILTER), self.settings.sysctl_folder), self.thread),
            kernel=kernel,
            attachments=Attachments(self.settings.state_folder / "attachments", self.thread),
        )

    def _open_for_pods(self) -> None:
        """From here on the node attaches pods: only now the runtime finds a network."""
        self._tell_mtu()
        self.obstacle = ""
        readiness.write(
            self._path("ready"), time.clock_gettime(time.CLOCK_BOOTTIME), self.settings.status_grace_period_s
        )
        folder, name = self.settings.cni_configuration_folder, self.settings.cni_configuration_name
        install.write_conflist(folder / name)
        log.info("node %s is ready", self.settings.node)
        gc.freeze()  # what is there by now stays: the collector need not look through it again and again

    # --- loops ---

    async def _resync(self) -> None:
        """The kernel is read now and then, whatever it told us."""
        tables = routes = time.monotonic()
        while True:
            await asyncio.sleep(5)
            state = self.dataplane.state
            if state is None:
                continue
            if not self.obstacle:
                self._tell_mtu()
            now = time.monotonic()
            if 0 < state.settings.nftables_refresh_interval_s <= now - tables:
                tables = now
                self.dataplane.notice("nftables", "refresh")
            if 0 < state.settings.route_refresh_interval_s <= now - routes:
                routes = now
                self.dataplane.notice("routes", "refresh")
                self.dataplane.notice("links", "refresh")
                self.dataplane.notice("sysctls", "refresh")

    async def _keep_tunnels(self, store: Store) -> None:
        """This node's blocks and tunnel addresses follow the pools."""
        changed = asyncio.Event()
        self.feed.listen(lambda kinds: changed.set() if kinds & {"IPPool", "Node"} else None)
        holder = TunnelAddresses(self.allocator, self.settings.node, time.time)
        changed.set()
        while True:
            await changed.wait()
            changed.clear()
            try:
                await self.allocator.adopt()
                notes = await tunnels.settle(
                    self.settings.node, holder, self.feed.pools_in_force(), self.feed.node_labels()
                )
                await identity.annotate(store, self.settings.node, notes)
                self._tell_mtu()
                self._unsettled = ""
            except (StoreError, IPAMError, Refused) as error:
                if str(error) != self._unsettled:
                    remedy = "a restart makes its Node anew" if isinstance(error, NotFound) else "tried again"
                    log.error("this node's blocks and tunnel addresses: %s; %s", error, remedy)
                self._unsettled = str(error)
                await asyncio.sleep(_RETRY_S)
                changed.set()

    async def _keep_log_short(self) -> None:
        """Moves the embedded store's log into its database on the kernel thread: else a write on the loop would, now
        and then, with its two fsyncs."""
        import sqlite3

        from calipy.datastore.sqlite_files import checkpoint, written_at

        path, done = self._database(), 0
        while True:
            await asyncio.sleep(_CHECKPOINT_S)
            written = written_at(path)
            if written == done:
                continue
            try:
                await asyncio.get_running_loop().run_in_executor(self.thread, checkpoint, path)
                done = written
            except (sqlite3.Error, StoreError) as error:
                log.warning("%s: its log can't be moved into it: %s", path, error)

    async def _measure_lag(self) -> None:
        """How late the loop is; also its sign of life."""
        while True:
            due = time.monotonic() + 1.0
            await asyncio.sleep(1.0)
            self.metrics.loop_lag.observe(max(0.0, time.monotonic() - due))
            self.heartbeat.beat()

    # --- small things ---

    def _tell_mtu(self) -> None:
        """Writes the pods' MTU where Calico's tools look for it; where that can't be, pods are served none the less."""
        bytes_ = self.pod_mtu()
        if bytes_ == self._told_mtu:
            return
        path = self.settings.state_folder / "mtu"
        try:
            files.put(path, f"{bytes_}\n")
        except OSError as error:
            if str(error) != self._untold:
                log.error("%s can't be written: %s; it should say %d", path, error.strerror, bytes_)
            self._untold = str(error)
        else:
            self._told_mtu, self._untold = bytes_, ""

    def pod_mtu(self) -> int:
        """The MTU that pods get."""
        felix = self.live.current
        workloads = self.monitor.workload_links
        links = [link for index, link in self.monitor.links.items() if index not in workloads]
        host = mtu.host_mtu(links, felix.mtu_interface_pattern)
        return mtu.pod_mtu(host, self.feed.pools_in_force(), {4: felix.vxlan_mtu, 6: felix.vxlan_mtu_v6})

    def _database(self) -> Path:
        return Path(self.settings.datastore.removeprefix("sqlite:"))

    def _path(self, name: str) -> Path:
        return self.settings.run_folder / name

    def _repaired(self, driver: str, reason: str) -> None:
        self.metrics.repairs.labels(driver).inc()
        self.repairs[driver] += 1

    def _answers(self) -> Answers:
        return Answers(
            self.settings.node,
            self.dataplane,
            self.areas,
            self.planner,
            self.endpoints,
            self.health,
            obstacle=lambda: self.obstacle,
            refused=lambda: {str(key): why for key, why in self.feed.refused.items()},
            sessions=self.bgp.sessions,
            repairs=lambda: dict(self.repairs),
        )

    def _observe(self, verb: str, code: str, seconds: float) -> None:
        self.metrics.cni_requests.labels(verb, code).observe(seconds)

    def _report(self, mirror: Mirror) -> None:
        ready = self.health.ready
        ready["CalculationGraph"] = lambda: "" if self.feed.in_sync.is_set() else "not in sync with the datastore yet"
        ready["InternalDataplaneMainLoop"] = lambda: (
            "" if self.dataplane.first_apply.is_set() else "the kernel hasn't been brought up to date yet"
        )
        ready["Datastore"] = lambda: "; ".join(sorted({c.error for c in mirror.connections.values() if c.error}))
        ready["BGP"] = self.bgp.problem
        ready["Kernel"] = lambda: "; ".join(self.dataplane.refused.values())
        figures.watch_loops(self.health, self.calculator, self.dataplane, self.feed, self.heartbeat)
        figures.publish_store(self.metrics, self.feed, mirror)

    # --- settings that the agent follows itself ---

    def _follow(self, settings: FelixSettings) -> None:
        """Settings have changed."""
        logs.set_level(self._log_level or settings.log_severity_screen)
        self.health.overrides = settings.health_timeout_overrides
        for listener in self.listeners:
            listener.follow()
        if not self.obstacle:
            self._tell_mtu()

    def _warn(self, kinds: frozenset[str]) -> None:
        if felix_configurations.KIND.name in kinds:
            self.live.warn(self.feed.all(felix_configurations.KIND))
        if ip_pools.KIND.name in kinds:
            self._warn_of_ipip()

    def _warn_of_ipip(self) -> None:
        for pool in self.feed.pools():
            if pool.spec.ipip_mode == "Never" or pool.metadata.name in self._told_ipip:
                continue
            self._told_ipip.add(pool.metadata.name)
            log.warning(
                "IPPool/%s: ipipMode %s has no effect: its blocks are routed without encapsulation; set vxlanMode "
                "where the network between nodes can't route them",
                pool.metadata.name,
                pool.spec.ipip_mode,
            )

    def _health_address(self) -> Address | None:
        felix = self.live.current
        return (felix.health_host, felix.health_port) if felix.health_enabled else None

    def _metrics_address(self) -> Address | None:
        felix = self.live.current
        address = (felix.prometheus_metrics_host, felix.prometheus_metrics_port)
        return address if felix.prometheus_metrics_enabled else None
