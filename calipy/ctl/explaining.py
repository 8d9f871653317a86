"""`explain`: would a new connection be allowed, and why."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import click
from msgspec import Struct

from calipy.console.commands import output_option, run
from calipy.console.formats import write_document
from calipy.console.tables import show_parts
from calipy.ctl.explanations import DIFFER, parts
from calipy.ctl.programmed import standing
from calipy.ctl.stores import location, opened
from calipy.ctl.waiting import reports_of
from calipy.datastore.stores import Store
from calipy.explain.answers import Answer, answers
from calipy.explain.questions import SOURCE_PORT, Ends, Question, Transport, families, question
from calipy.felix.calc import world
from calipy.felix.rules.origins import policy_id
from calipy.resources import ip_pools, kinds, services
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Key, Refused, Resource, accept
from calipy.resources.node_reports import NodeReport

DIFFERENT, DENIED = 3, 4
"""Exit statuses."""
_READ = (*world.WATCHED, services.KIND.name)


class Read(Struct, frozen=True, gc=False, kw_only=True):
    """What the datastore has."""

    objects: Mapping[Key, Resource]
    """Those that bear on policy, as nodes accept them."""
    revisions: Mapping[Key, int]
    refused: Mapping[str, str]
    """Those that nodes don't accept, and why."""
    reports: Mapping[str, NodeReport]
    """The nodes', by their names."""


class Behind(Struct, frozen=True, gc=False, kw_only=True):
    """A policy that isn't in force as it is written on a node where it was looked at, and why."""

    node: str
    policy: str
    reason: str


class Explanation(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """What `-o json` prints."""

    question: Question
    allowed: bool
    """In every family, by both answers."""
    agreed: bool
    """False: the two answers differ."""
    answers: tuple[Answer, ...]
    left_out: Mapping[str, str]
    """Objects that are refused, and why: neither answer knows of them."""
    behind: tuple[Behind, ...]
    """Where the nodes do otherwise as yet."""


@click.command()
@click.argument("end")
@click.option("--from", "source", metavar="END", default="", help="Who connects; END is whom it connects to.")
@click.option("--to", "destination", metavar="END", default="", help="Whom it connects to; END is who connects.")
@click.option("--port", default="", help="The destination's: a number, or what its pod calls it.")
@click.option(
    "--protocol", type=click.Choice(["TCP", "UDP", "SCTP", "ICMP"], case_sensitive=False), default="TCP",
    show_default=True, help="ICMP is an echo request.",
)  # fmt: skip
@click.option("--family", type=click.Choice(["4", "6", "both"]), default="both", show_default=True)
@click.option("--source-port", type=click.IntRange(1, 65535), default=SOURCE_PORT, show_default=True)
@click.option("-n", "--namespace", default="default", show_default=True, help="Of pods that name none.")
@click.option("-v", "--verbose", is_flag=True, help="As -o wide: all rules that were looked at.")
@click.option("--exit-code", is_flag=True, help=f"Exit with {DENIED} if it is denied.")
@output_option("table", "wide", "json", "yaml")
@click.pass_obj
def explain(
    datastore: str, end: str, source: str, destination: str, port: str, protocol: Transport,
    family: Literal["4", "6", "both"], source_port: int, namespace: str, verbose: bool, exit_code: bool, output: Any,
) -> None:  # fmt: skip
    """Say whether a new connection would be allowed, which rule decides, and which way it would take.

    END is a pod (NAMESPACE/NAME, or NAME), an address, or node/NAME.

    \b
        pycalicoctl explain shop/web --from shop/client --port 80
        pycalicoctl explain shop/client --to 10.1.2.3 --port 443 --protocol UDP

    Both the specifications and the rules that nodes compile are asked, by the objects in the datastore; what nodes
    haven't programmed yet is noted. Without --family all families that both ends have are asked.

    Exit status: 0 answered, be it allowed or denied; 1 the question can't be answered; 2 wrong usage; 3 the two answers
    differ; with --exit-code, 4 denied. In -o json, `allowed` says it.
    """
    if bool(source) == bool(destination):
        raise click.UsageError("name the other end: --from END or --to END, one of them")
    pair = (source, end) if source else (end, destination)
    output = "wide" if verbose and output == "table" else output

    async def work() -> Read:
        async with opened(location(datastore, os.environ)) as store:
            return await read(store)

    known = run(work())
    ends = Ends(known.objects)
    asked = question(ends, ends.named(pair[0], namespace), ends.named(pair[1], namespace), protocol, port, source_port)
    found = _explained(known, ends, asked, family)
    _show(found, output)
    if not found.agreed:
        sys.exit(DIFFERENT)
    if exit_code and not found.allowed:
        sys.exit(DENIED)


def _explained(known: Read, ends: Ends, asked: Question, family: Literal["4", "6", "both"]) -> Explanation:
    found = answers(known.objects, ends, asked, families(asked.source, asked.destination, family))
    return Explanation(
        question=asked, allowed=all(answer.allowed for answer in found), agreed=all(answer.agreed for answer in found),
        answers=found, left_out=known.refused, behind=tuple(dict.fromkeys(_behind(known, found))),
    )  # fmt: skip


def _behind(known: Read, found: Iterable[Answer]) -> Iterator[Behind]:
    for answer in found:
        nodes = {"egress": answer.way.source_node, "ingress": answer.way.destination_node}
        for direction, policy in answer.policies:
            node, key = nodes[direction], policy_id(policy).key
            told = standing(key, known.revisions[key], [node], known.reports)
            if node in told.missing:
                yield Behind(node=node, policy=policy, reason=told.missing[node])


def _show(found: Explanation, output: Literal["table", "wide", "json", "yaml"]) -> None:
    for name, reason in found.left_out.items():
        click.echo(f"note: {name} is left out: {reason}; a node that knew it when it was right keeps to that", err=True)
    for behind in found.behind:
        click.echo(f"note: {behind.policy} is not in force on node {behind.node}: {behind.reason}", err=True)
    if output == "json" or output == "yaml":
        write_document(found, output, sys.stdout)
    else:
        show_parts(list(parts(found.question, found.answers, wide=output == "wide")), output)
    if not found.agreed:
        click.echo(click.style(f"\n{DIFFER}", fg="red", bold=True), err=True)


async def read(store: Store) -> Read:
    """All that an explanation is made of."""
    objects: dict[Key, Resource] = {}
    revisions: dict[Key, int] = {}
    refused: dict[str, str] = {}
    for name in _READ:
        async for page in store.list(kinds.BY_NAME[name]):
            for stored in page.items:
                revisions[stored.key] = stored.revision
                try:
                    objects[stored.key] = accept(kinds.BY_NAME[name], stored.value)
                except Refused as error:
                    refused[str(stored.key)] = " | ".join(map(str, error.problems))
    refused |= {str(key): reason for key, reason in store.unreadable.items() if key.kind in _READ}
    pools = [value for value in objects.values() if isinstance(value, IPPool)]
    for pool, problem in ip_pools.overlaps(pools).items():
        key = Key(ip_pools.KIND.name, pool)
        del objects[key]
        refused[str(key)] = str(problem)
    reports, _ = await reports_of(store)
    return Read(objects=objects, revisions=revisions, refused=refused, reports=reports)
