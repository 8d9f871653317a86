"""What the lab shows: its rows and their columns, the matrix."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct, structs

from calipy.console.progress import duration
from calipy.console.tables import Column, Mark, Matrix
from calipy.datastore.stores import Store
from calipy.explain.query import Unanswered
from calipy.explain.report import NodeReport, RouteReport, SessionReport
from calipy.lab.cluster import AGENT, BGP, Lab
from calipy.lab.connections import Attempt
from calipy.lab.machines import Status as ProcessStatus
from calipy.lab.pods import sandboxes
from calipy.lab.reachability import Probe
from calipy.lab.waiting import together
from calipy.node.check import REPORTER, Finding
from calipy.resources import ipam_blocks

_ANSWER_S: Final = 2.0


class NodeRow(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A node."""

    node: str
    rack: str
    addresses: tuple[str, ...]
    power: bool
    carrier: bool
    agent: str
    """`ready`, `not ready`, `off`, or how it is down."""
    bgp: str
    """`running`, `off`, or how it is down."""
    restarts: int = 0
    """Of both processes, by the machine."""
    sessions: tuple[SessionReport, ...] = ()
    pods: int = 0
    problems: tuple[str, ...] = ()
    """What its agent complains of."""
    degraded: tuple[str, ...] = ()
    """What isn't as it is meant to be though it is ready."""
    findings: tuple[Finding, ...] = ()
    """What is wrong with the host."""


class PodRow(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A pod."""

    namespace: str
    name: str
    node: str
    state: str
    """`running`, `without power`, `half made`."""
    addresses: tuple[str, ...]
    blocks: tuple[str, ...]
    """Of each address; with its holder where that is another node."""
    listens: tuple[str, ...]
    container_id: str


async def node_rows(lab: Lab) -> tuple[NodeRow, ...]:
    """All nodes, as they are now."""
    return await together(_node_row(lab, name) for name in lab.nodes)


async def _node_row(lab: Lab, name: str) -> NodeRow:
    node = lab.nodes[name]
    row = NodeRow(
        node=name, rack=node.segment.name, addresses=tuple(node.address(family) for family in lab.plan.versions),
        power=lab.on(name), carrier=False, agent="off", bgp="off", pods=len(sandboxes(lab, name)),
    )  # fmt: skip
    if not row.power:
        return row
    processes = await lab.machines[name].processes()
    agent, bgp = processes.get(AGENT), processes.get(BGP)
    row = structs.replace(
        row, carrier=await lab.carrier(name), agent=_process(agent), bgp=_process(bgp),
        restarts=sum(part.restarts for part in (agent, bgp) if part),
    )  # fmt: skip
    if not agent or not agent.pid:
        return row
    try:
        return told(row, await lab.ask(name, "status", NodeReport, _ANSWER_S))
    except Unanswered:
        return structs.replace(row, agent="does not answer")


def told(row: NodeRow, report: NodeReport) -> NodeRow:
    """A node with what its agent says of it. The findings are told one by one."""
    return structs.replace(
        row, agent="not ready" if report.problems or report.obstacle else "ready", sessions=report.sessions,
        problems=_complaints(report.problems), findings=report.findings,
        degraded=_complaints({name: why for name, why in report.degraded.items() if name != REPORTER}),
    )  # fmt: skip


def _complaints(by_reporter: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{reporter}: {problem}" for reporter, problem in by_reporter.items())


def _process(status: ProcessStatus | None) -> str:
    if status is None:
        return "off"
    return "running" if status.pid else f"down (status {status.status})"


async def pod_rows(lab: Lab, store: Store) -> tuple[PodRow, ...]:
    """All pods, each with its blocks."""
    rows = []
    async for page in store.list(ipam_blocks.KIND):
        rows += [stored.value.spec for stored in page.items]
    blocks = {ipaddress.ip_network(spec.cidr): spec.affinity or "" for spec in rows}
    return tuple(
        PodRow(
            namespace=pod.namespace, name=pod.name, node=pod.node, addresses=pod.addresses,
            state="half made" if not pod.addresses else "running" if lab.on(pod.node) else "without power",
            blocks=tuple(_block(address, pod.node, blocks) for address in pod.addresses),
            listens=tuple(map(str, pod.listens)), container_id=pod.container_id,
        )
        for pod in sandboxes(lab)
    )  # fmt: skip


def _block(address: str, node: str, blocks: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, str]) -> str:
    parsed = ipaddress.ip_address(address)
    for network, affinity in blocks.items():
        if parsed.version == network.version and parsed in network:
            holder = affinity.removeprefix("host:")
            return str(network) if holder == node else f"{network} of {holder or 'nobody'}"
    return "none"


# --- tables ---


def _sessions(row: NodeRow) -> str:
    up = sum(session.state == "up" for session in row.sessions)
    return f"{up} of {len(row.sessions)} up" if row.sessions else "-"


NODE_COLUMNS: Final[Sequence[Column[NodeRow]]] = (
    Column("NODE", lambda row: row.node),
    Column("RACK", lambda row: row.rack),
    Column("ADDRESSES", lambda row: " ".join(row.addresses)),
    Column("UPLINK", lambda row: "no power" if not row.power else "up" if row.carrier else "cut"),
    Column("AGENT", lambda row: row.agent),
    Column("BGP", lambda row: row.bgp),
    Column("SESSIONS", _sessions),
    Column("PODS", lambda row: str(row.pods)),
    Column("RESTARTS", lambda row: str(row.restarts), wide=True),
)


class ProblemRow(Struct, frozen=True, gc=False, kw_only=True):
    """One thing that a node's agent complains of."""

    node: str
    severity: str
    """`not ready`, `degraded`, or a finding's."""
    problem: str


def problem_rows(rows: Iterable[NodeRow], *, notices: bool = False) -> tuple[ProblemRow, ...]:
    """What all nodes' agents complain of, with or without what is only a notice."""
    return tuple(
        ProblemRow(node=row.node, severity=severity, problem=problem)
        for row in rows
        for severity, problem in _problems(row)
        if notices or severity != "notice"
    )


def _problems(row: NodeRow) -> Iterator[tuple[str, str]]:
    yield from (("not ready", problem) for problem in row.problems)
    yield from (("degraded", problem) for problem in row.degraded)
    yield from ((finding.severity, str(finding)) for finding in row.findings)


PROBLEM_COLUMNS: Final[Sequence[Column[ProblemRow]]] = (
    Column("NODE", lambda row: row.node),
    Column("SEVERITY", lambda row: row.severity),
    Column("PROBLEM", lambda row: row.problem),
)

POD_COLUMNS: Final[Sequence[Column[PodRow]]] = (
    Column("POD", lambda row: row.name if row.namespace == "default" else f"{row.namespace}/{row.name}"),
    Column("NODE", lambda row: row.node),
    Column("STATE", lambda row: row.state),
    Column("ADDRESSES", lambda row: "\n".join(row.addresses)),
    Column("BLOCKS", lambda row: "\n".join(row.blocks)),
    Column("LISTENS", lambda row: " ".join(row.listens) or "-"),
    Column("CONTAINER", lambda row: row.container_id[:13], wide=True),
)


class SessionRow(Struct, frozen=True, gc=False, kw_only=True):
    """A session, with the node at this end."""

    node: str
    session: SessionReport


def session_rows(rows: Iterable[NodeRow]) -> tuple[SessionRow, ...]:
    """All nodes' sessions."""
    return tuple(SessionRow(node=row.node, session=session) for row in rows for session in row.sessions)


SESSION_COLUMNS: Final[Sequence[Column[SessionRow]]] = (
    Column("NODE", lambda row: row.node),
    Column("WITH", lambda row: row.session.node or "tor"),
    Column("PEER", lambda row: row.session.peer),
    Column("AS", lambda row: str(row.session.as_number)),
    Column("KIND", lambda row: row.session.kind),
    Column("STATE", lambda row: f"{row.session.state} {row.session.reason}".rstrip()),
    Column("HEARD", lambda row: str(row.session.received)),
    Column("TOLD", lambda row: str(row.session.announced)),
)

ROUTE_COLUMNS: Final[Sequence[Column[RouteReport]]] = (
    Column("ROUTE", lambda row: row.prefix),
    Column("WAY", lambda row: "dropped" if row.kind == "blackhole" else "\n".join(row.ways) or "-"),
    Column("WHY", lambda row: row.word if row.state == "in force" else f"{row.word} ({row.state}: {row.reason})"),
)


ATTEMPT_COLUMNS: Final[Sequence[Column[Attempt]]] = (
    Column("FROM", lambda row: row.source),
    Column("TO", lambda row: row.target),
    Column("PORT", lambda row: f"{row.protocol}/{row.port}"),
    Column("ADDRESS", lambda row: row.address),
    Column("VERDICT", lambda row: row.verdict),
    Column("TIME", lambda row: f"{row.seconds * 1000:.2f} ms" if row.seconds < 0.1 else duration(row.seconds)),
    Column("ANSWER", lambda row: row.answer or row.reason),
)


def reachability(title: str, probes: Sequence[Probe], blocked: Collection[tuple[str, str]] = ()) -> Matrix:
    """From whom (rows) to whom (columns); under outside stands what it saw. Pairs that are `blocked` should not get
    through: that is neither well nor ill, but it is ill if one does."""
    cells: dict[tuple[str, str], list[Probe]] = {}
    for probe in probes:
        cells.setdefault((probe.source, probe.target), []).append(probe)
    rows = list(dict.fromkeys(probe.source for probe in probes))
    pods = [name for name in rows if any(probe.target == name for probe in probes)]
    columns = [*pods, *dict.fromkeys(probe.target for probe in probes if probe.target not in pods)]
    marks = {cell: _barred(found) if cell in blocked else _mark(found) for cell, found in cells.items()}
    return Matrix(name="reachability", title=title, corner="from \\ to", rows=rows, columns=columns, marks=marks)


def _mark(probes: Sequence[Probe]) -> Mark:
    good = all(probe.good for probe in probes)
    if probes[0].target_kind == "outside":
        return Mark(good, " ".join(probe.seen or "-" for probe in probes))
    bad = [f"v{probe.family}" for probe in probes if not probe.good]
    return Mark(good, " ".join(bad))


def _barred(probes: Sequence[Probe]) -> Mark:
    through = [f"v{probe.family}" for probe in probes if probe.answered]
    return Mark(False, f"open {' '.join(through)}") if through else Mark(None, "blocked")
