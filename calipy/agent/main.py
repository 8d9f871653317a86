"""The composition root: a node's parts, who is told what, and the order in which they come to life.

Nothing is touched before this agent is the only one. Policy first: the closed skeleton stands before the datastore is
asked. Nothing else in the kernel is touched before the store is in sync; then what earlier agents left is taken over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from calipy import logs
from calipy.agent import alone, clock, figures
from calipy.agent.answers import Answers
from calipy.agent.bgp import Bgp
from calipy.agent.datastores import datastore
from calipy.agent.feed import Feed, watched
from calipy.agent.first import First
from calipy.agent.flow_judge import recheck
from calipy.agent.host_files import HostFiles
from calipy.agent.joints import FlushedFlows, ProgrammedEndpoints, WorkloadLinks, reconnections
from calipy.agent.live import LiveSettings
from calipy.agent.node_checks import node_checks
from calipy.agent.own_addresses import OwnAddresses, PodCidrs
from calipy.agent.servers import servers
from calipy.agent.whereabouts import Whereabouts
from calipy.agent.without_effect import WithoutEffect
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
from calipy.datastore.stores import Store, StoreError
from calipy.explain import query
from calipy.felix.calc.change import earlier
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import Event, LinkGone, LinkSeen
from calipy.felix.drivers.conntrack import Conntrack
from calipy.felix.engine import Engine
from calipy.felix.report import Reporter
from calipy.ipam.allocator import Allocator
from calipy.netlink.socket import NETFILTER, NetlinkSocket
from calipy.node import mtu
from calipy.node.availability import Availability
from calipy.resources import calipy_configurations, nodes
from calipy.resources.felix_configurations import Value
from calipy.resources.ip_pools import IPPool
from calipy.settings import Settings
from calipy.telemetry import Health, Heartbeat, Metrics

log = logging.getLogger("calipy.agent")
_RETRY_S = 1.0
_STARTING = "the agent is starting"
T = TypeVar("T")


class Agent:
    """One node's agent. What it is made of before the store is open is made at once; the rest in `run`."""

    def __init__(
        self,
        settings: Settings,
        process: Mapping[str, Mapping[str, Value]],
        thread: ThreadPoolExecutor,
        first: First,
        *,
        log_level: str = "",
    ) -> None:
        """`process` are Felix's settings from file and environment; `thread` does what blocks; `first` is what was done
        at once; `log_level` holds whatever logSeverityScreen says, empty = that."""
        self.settings = settings
        self.thread = thread
        self.obstacle = _STARTING
        """Why this node can't attach pods now."""
        self._log_level = log_level
        self._availability: Availability | None = None
        self._pools: Callable[[], Sequence[IPPool]] = tuple
        """Those in force; before the store says so there are none."""
        self.metrics, self.health, self.heartbeat = Metrics(), Health(), Heartbeat()
        self._datastore = datastore(settings, thread, self._observe_store)
        self.repairs: Counter[str] = Counter()
        self.live = LiveSettings(settings.node, process)
        self._first = first
        self.engine = Engine(settings.node, process, thread, sysctls=settings.sysctl_folder, nftables=first.nftables)
        monitor = self.engine.monitor
        self.links = WorkloadLinks(self.engine.endpoints, monitor.links, monitor.addresses_of, self._repaired)
        self.recheck = recheck(self.engine, thread, sysctls=settings.sysctl_folder)
        self.lag = clock.Lag(self.metrics.loop_lag.observe, self.heartbeat)
        self.servers = servers(self.health, self.metrics, self.live)
        self.host_files = HostFiles(thread)
        self._tell_each_other()
        self._follow(self.live.current)

    def _tell_each_other(self) -> None:
        engine, ready = self.engine, self.health.ready
        engine.on_settings = self.live.take
        self.live.changed = self._follow
        engine.on_shaken = self.links.shaken
        engine.dataplane.on_repair = self._repaired
        ready["FelixStartup"] = lambda: self.obstacle
        ready["HostFiles"] = lambda: self.host_files.problem
        self.metrics.host.labels(self.settings.node).set(1)
        figures.publish_kernel(self.metrics, engine)
        figures.publish_calculation(self.metrics, engine)
        figures.publish_recheck(self.metrics, self.recheck)

    # --- the order of things ---

    async def run(self) -> None:
        """Everything, without end."""
        async with asyncio.TaskGroup() as group:
            for server in self.servers:
                group.create_task(server.run())
            group.create_task(self.host_files.run())
            group.create_task(self.lag.run())
            await alone.alone(await self._once(self._lock), self._hinder)
            await self._once(self.engine.guard)
            store = await self._once(self._datastore.open)
            self.engine.adopt(await self._once(lambda: self.live.read(store)))
            await self.engine.monitor.start()
            whereabouts = await self._introduce(store, group)
            group.create_task(self._datastore.keep())
            await self._join_cluster(store, group, whereabouts)

    async def _introduce(self, store: Store, group: asyncio.TaskGroup) -> Whereabouts:
        """First objects of the cluster, this node's own object, and where it is."""
        self.obstacle = "this node is not introduced yet"
        whereabouts = Whereabouts(store, self.settings, self.engine.monitor)
        self.health.ready["NodeAddress"] = lambda: whereabouts.problem
        self.health.degraded["FelixStartup"] = lambda: "; ".join(whereabouts.forbidden)

        def look(events: Sequence[Event]) -> None:
            if self.engine.monitor.is_of_host(events):
                whereabouts.moved()
            if any(isinstance(event, LinkSeen | LinkGone) for event in events):
                self._follow_mtu()

        self.engine.on_news = look
        await whereabouts.introduce()
        group.create_task(whereabouts.keep())
        self.host_files.want(self.settings.state_folder / "nodename", f"{self.settings.node}\n".encode())
        self.obstacle = _STARTING
        return whereabouts

    async def _join_cluster(self, store: Store, group: asyncio.TaskGroup, whereabouts: Whereabouts) -> None:
        """What follows the store, and what serves pods."""
        start, engine = group.create_task, self.engine
        mirror = Mirror(store, watched())
        feed = Feed(mirror, self.settings.node)
        self._pools = feed.pools_in_force
        inputs = PodCidrs(feed) if self.settings.use_pod_cidr else feed
        allocator = Allocator(store, self.settings.node, inputs, time.time)
        bgp = Bgp(self.settings, store, feed, engine.endpoints, engine.dataplane, engine.calculator.post, self.metrics)
        own = OwnAddresses(store, feed, allocator, self.settings.node)
        self.checks = node_checks(engine, feed)
        attachments = await self._once(self._attachments)
        site = self._site(store, feed, allocator, attachments)
        removals = Removals(site)
        WithoutEffect().follow(feed)
        self._follow_calipy_configuration(feed)
        self._report(mirror, feed, bgp, own)
        figures.publish_checks(self.metrics, self.health, self.checks)
        self.lag.watch(self.checks.pulse)
        feed.listen(self.checks.heard)
        feed.on_news = engine.policy_times.heard
        feed.listen(lambda kinds: whereabouts.follow(feed.node()) if nodes.KIND.name in kinds else None)
        start(query.serve(self._path("query.sock"), self._answers(feed, bgp, whereabouts).by_name()))
        start(Server(self._path("cni.sock"), Dispatcher(site, removals, self._observe)).run())
        start(mirror.run())
        start(feed.run(engine.calculator.post))
        await feed.in_sync.wait()
        engine.endpoints.restore([e.endpoint for e in attachments if e.endpoint and e.state == "attached"])
        if bgp.wanted:
            bgp.hold_leftovers()
            start(bgp.run())
        start(engine.calculator.run())
        start(engine.dataplane.run())
        start(self.recheck.run())
        start(self._reporter(store, feed).run())
        start(clock.read_kernel_again(engine.dataplane))
        await engine.dataplane.first_apply.wait()
        start(self.checks.run())
        start(own.run(self._tell_mtu))
        await self._open_for_pods()
        start(self._keep_ready())
        if self.settings.networking_backend != "none":
            self._availability = Availability(store, self.settings.node, self._unready)
            start(self._availability.run())
        start(releases.replay(removals, reconnections(feed, mirror)))

    async def _open_for_pods(self) -> None:
        """From here on the node attaches pods: only now the runtime finds a network."""
        self._tell_mtu()
        folder, name = self.settings.cni_configuration_folder, self.settings.cni_configuration_name
        self.host_files.want(folder / name, install.conflist(), mode=0o600)
        await self.host_files.tried()
        self.obstacle = ""
        log.info("node %s is ready", self.settings.node)
        gc.freeze()  # what is there by now stays: the collector need not look through it again and again

    async def _keep_ready(self) -> None:
        path, grace_s = self._path("ready"), self.settings.status_grace_period_s
        await readiness.keep(path, lambda: self.obstacle, grace_s, lambda why: self.host_files.report(path, why))

    async def farewell(self) -> None:
        """Before the end: tells the cluster that this node's network is without its agent."""
        if self._availability is not None:
            await self._availability.farewell()

    def _unready(self) -> str:
        """Why this node isn't ready, in a sentence."""
        return "; ".join(f"{name}: {said}" for name, said in self.health.problems(self.health.ready).items())

    # --- what may have to be waited for ---

    async def _once(self, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` gives, once it can: until then its error is what hinders this node."""
        while True:
            try:
                made = await make()
            except (StoreError, OSError) as error:
                self._hinder(_said(error))
                await asyncio.sleep(_RETRY_S)
            else:
                self.obstacle = _STARTING
                return made

    def _hinder(self, reason: str) -> None:
        if reason != self.obstacle:
            log.error("%s", reason)
        self.obstacle = reason

    async def _lock(self) -> alone.Lock:
        return self._first.lock or alone.Lock(self._path(alone.FILE))

    async def _attachments(self) -> Attachments:
        return Attachments(self.settings.state_folder / "attachments", self.thread)

    # --- parts that are put together from others ---

    def _site(self, store: Store, feed: Feed, allocator: Allocator, attachments: Attachments) -> Site:
        """What CNI's verbs work with."""
        kernel = Wires(self.settings.sysctl_folder)
        self.engine.monitor.own_ports |= kernel.ports
        node = NodeFacts(
            name=self.settings.node,
            interface_prefix=self.live.current.interface_prefixes[0],
            mtu=self.pod_mtu,
            families=lambda: tuple(sorted({pool.family for pool in feed.pools()})),
            obstacle=lambda: self.obstacle,
        )
        return Site(
            node=node,
            addresses=AllocatedAddresses(allocator, self.settings.node, time.time),
            endpoints=ProgrammedEndpoints(self.engine.endpoints),
            pods=StoredPods(store, self.settings.node, embedded=self._datastore.embedded),
            flows=FlushedFlows(Conntrack(NetlinkSocket.open(NETFILTER), self.settings.sysctl_folder), self.thread),
            kernel=kernel,
            attachments=attachments,
        )

    def _answers(self, feed: Feed, bgp: Bgp, whereabouts: Whereabouts) -> Answers:
        return Answers(
            self.settings.node,
            self.engine,
            self.health,
            obstacle=lambda: self.obstacle,
            refused=lambda: {str(key): why for key, why in feed.refused.items()},
            sessions=bgp.sessions,
            repairs=lambda: dict(self.repairs),
            addresses=whereabouts.reports,
            findings=lambda: self.checks.findings,
        )

    def _reporter(self, store: Store, feed: Feed) -> Reporter:
        """What tells everybody how far policy is in force here."""
        dataplane = self.engine.dataplane
        reporter = Reporter(
            store,
            self.settings.node,
            programmed=lambda: earlier(feed.newest, dataplane.programmed_revisions),
            refused=lambda: dataplane.refused,
            unaccepted=lambda: feed.refused,
        )
        dataplane.on_programmed = reporter.changed
        feed.listen(lambda kinds: reporter.changed())
        return reporter

    def _report(self, mirror: Mirror, feed: Feed, bgp: Bgp, own: OwnAddresses) -> None:
        """What health and metrics are told by those that follow the store."""
        figures.report_ready(self.health, self.engine.dataplane, feed, mirror)
        self.health.ready["BGP"], self.health.degraded["BGP"] = bgp.problem, bgp.degradation
        self.health.ready["IPAM"] = lambda: own.problem
        figures.watch_loops(self.health, self.engine, feed, self.heartbeat)
        for pulse in (feed.pulse, self.engine.calculator.pulse, self.engine.dataplane.pulse, self.recheck.pulse):
            self.lag.watch(pulse)
        figures.publish_store(self.metrics, feed, mirror)

    # --- what is told on ---

    def _follow(self, settings: FelixSettings) -> None:
        """Settings have changed, and the agent follows some itself."""
        logs.set_level(self._log_level or settings.log_severity_screen)
        self.health.overrides = settings.health_timeout_overrides
        for server in self.servers:
            server.follow()
        self._follow_mtu()

    def _follow_calipy_configuration(self, feed: Feed) -> None:
        """CalIPy's own settings, now and later."""

        def look(kinds: frozenset[str]) -> None:
            if calipy_configurations.KIND.name in kinds:
                found, environment = feed.all(calipy_configurations.KIND), self.settings.policy_recheck
                self.recheck.follow(calipy_configurations.policy_recheck(self.settings.node, found, environment))

        look(frozenset((calipy_configurations.KIND.name,)))
        feed.listen(look)

    def _follow_mtu(self) -> None:
        """The pods' MTU may have changed: it goes where Calico's tools look for it."""
        if not self.obstacle:
            self._tell_mtu()

    def _tell_mtu(self) -> None:
        self.host_files.want(self.settings.state_folder / "mtu", f"{self.pod_mtu()}\n".encode())

    def pod_mtu(self) -> int:
        """The MTU that pods get."""
        felix = self.live.current
        monitor = self.engine.monitor
        links = [link for index, link in monitor.links.items() if index not in monitor.workload_links]
        host = mtu.host_mtu(links, felix.mtu_interface_pattern)
        return mtu.pod_mtu(host, self._pools(), {4: felix.vxlan_mtu, 6: felix.vxlan_mtu_v6})

    def _repaired(self, driver: str, reason: str) -> None:
        self.metrics.repairs.labels(driver).inc()
        self.repairs[driver] += 1

    def _observe(self, verb: str, code: str, seconds: float) -> None:
        self.metrics.cni_requests.labels(verb, code).observe(seconds)

    def _observe_store(self, verb: str, resource: str, code: str) -> None:
        self.metrics.store_requests.labels(verb, resource, code).inc()

    def _path(self, name: str) -> Path:
        return self.settings.run_folder / name


def _said(error: Exception) -> str:
    """Without the number of an error of the system."""
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
