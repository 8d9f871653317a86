"""A tracked flow as the packet that began it, judged by the rules that are in force: what policyRecheck goes by."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from calipy.explain.verdicts import Packet
from calipy.explain.walk import Broken, Crossing, Ruleset
from calipy.felix.drivers.barriers import Barrier
from calipy.felix.drivers.conntrack import Conntrack
from calipy.felix.engine import Engine
from calipy.felix.recheck import EVERY_S, Judge, Recheck
from calipy.felix.rules.compile import STATIC
from calipy.model.endpoints import WorkloadEndpoint
from calipy.netlink.ctnetlink import Flow
from calipy.netlink.socket import NETFILTER, NetlinkSocket

log = logging.getLogger("calipy.agent")

_ELSEWHERE = "/"
"""An interface that is no workload's: the name of none."""


def crossing(flow: Flow, interfaces: dict[str, str]) -> Crossing:
    """How the first packet of a flow crosses the node, where rules judge it: it has its sender's address and ports, and
    those of who answers: translation of destinations comes before, translation of sources after. `interfaces` leads
    from a workload's address to its interface, from one of the node's own to nothing."""
    first, answers = flow.original, flow.reply
    packet = Packet(
        source=first.source, destination=answers.source, protocol=first.protocol, source_port=first.source_port,
        destination_port=answers.source_port, icmp_type=first.icmp_type, icmp_code=first.icmp_code,
    )  # fmt: skip
    return Crossing(
        packet=packet,
        incoming=interfaces.get(packet.source, _ELSEWHERE),
        outgoing=interfaces.get(packet.destination, _ELSEWHERE),
        state="related" if flow.expected else "new",
    )


def judge_of(rules: Ruleset, endpoints: Iterable[WorkloadEndpoint], own: Iterable[str]) -> Judge:
    """A judge by rules. `endpoints` are the node's workloads, `own` its own addresses. What can't be judged is let
    live: it is told."""
    interfaces = dict.fromkeys(own, "")
    interfaces.update((address, endpoint.interface) for endpoint in endpoints for address in endpoint.addresses)

    def judge(flow: Flow) -> bool:
        try:
            return rules.walk(crossing(flow, interfaces)).allowed
        except Broken as error:
            log.error("a connection can't be judged anew, and stays: %s", error)
            return True

    return judge


def in_force(engine: Engine) -> Judge:
    """A judge by what the engine's kernel holds now."""
    ledger, state = engine.dataplane.area(engine.nftables.name).ledger, engine.dataplane.state
    assert state is not None
    rules = Ruleset(ledger.wanted, ledger.objects(STATIC))
    return judge_of(rules, state.endpoints.values(), (found.address for found in engine.monitor.addresses))


def recheck(
    engine: Engine,
    thread: Executor,
    *,
    sysctls: Path = Path("/proc/sys/net"),
    namespace: int | None = None,
    every_s: float = EVERY_S,
) -> Recheck:
    """policyRecheck of an engine, which tells it what is committed; its `run` is the caller's to call."""
    inventory, kernel = (Conntrack(NetlinkSocket.open(NETFILTER, namespace=namespace), sysctls) for _ in range(2))
    barrier = Barrier(NetlinkSocket.open(NETFILTER, namespace=namespace))
    made = Recheck(
        engine.dataplane, engine.nftables.name, inventory, kernel, barrier, thread, partial(in_force, engine),
        every_s=every_s,
    )  # fmt: skip
    engine.on_rules = made.committed
    return made
