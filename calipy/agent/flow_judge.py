"""A tracked flow as the packet that began it, judged by the rules that are in force: what policyRecheck goes by."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

from calipy.explain.verdicts import Packet
from calipy.explain.walk import Broken, Crossing, Ruleset
from calipy.felix.drivers.barriers import Barrier
from calipy.felix.drivers.conntrack import Conntrack
from calipy.felix.engine import Engine
from calipy.felix.recheck import EVERY_S, Judge, Recheck
from calipy.felix.rules.compile import STATIC
from calipy.felix.rules.values import Side
from calipy.model.endpoints import WorkloadEndpoint
from calipy.netlink.ctnetlink import Flow
from calipy.netlink.socket import NETFILTER, NetlinkSocket

log = logging.getLogger("calipy.agent")

_KNOWN_MOST = 50_000
"""Answers that are kept during a look."""
_Question = tuple[tuple[str, str, int, bool], tuple[int, int, int] | None, int | None]
"""Ends, protocol and whether it was expected; the sender's port or ICMP type and code, and the receiver's, each None
where nobody asks for it."""
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
    known: dict[_Question, bool] = {}

    def judge(flow: Flow) -> bool:
        questions = _questions(flow)
        for question in questions.values():
            if question in known:
                return known[question]
        try:
            walk = rules.walk(crossing(flow, interfaces))
        except Broken as error:
            log.error("a connection can't be judged anew, and stays: %s", error)
            return True
        if len(known) >= _KNOWN_MOST:
            known.clear()
        known[questions[walk.asked]] = walk.allowed
        return walk.allowed

    return judge


def _questions(flow: Flow) -> dict[frozenset[Side], _Question]:
    """What a flow asks of the rules, by the sides whose ports they look at: flows that ask the same have one answer."""
    first, answers = flow.original, flow.reply
    source = first.source_port, first.icmp_type, first.icmp_code
    base = first.source, answers.source, first.protocol, flow.expected
    return {
        frozenset(): (base, None, None),
        frozenset(("destination",)): (base, None, answers.source_port),
        frozenset(("source",)): (base, source, None),
        frozenset(("source", "destination")): (base, source, answers.source_port),
    }


class InForce:
    """A judge by what the engine's kernel holds now; the same one, with all that it knows by then, until that moves."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._judge: Judge | None = None
        self._seen: object = None

    def __call__(self) -> Judge:
        engine = self._engine
        area, state = engine.dataplane.area(engine.nftables.name), engine.dataplane.state
        assert state is not None
        own = {found.address for found in engine.monitor.addresses}
        seen = area.writes, own  # what is wanted and not refused is written; who lives where, `forget` is told
        if self._judge is None or seen != self._seen:
            rules = Ruleset(area.ledger.wanted, area.ledger.objects(STATIC))
            self._judge, self._seen = judge_of(rules, state.endpoints.values(), own), seen
        return self._judge

    def forget(self) -> None:
        """Something has moved, or nobody will ask soon."""
        self._judge = None


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
        engine.dataplane, engine.nftables.name, inventory, kernel, barrier, thread, InForce(engine),
        every_s=every_s,
    )  # fmt: skip
    engine.on_rules = made.committed
    return made
