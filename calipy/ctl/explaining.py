"""`explain`: would a new connection be allowed, and why."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import click
from msgspec import Struct

from calipy.console.commands import output_option, run
from calipy.console.formats import write_document
from calipy.console.tables import show_parts
from calipy.ctl.explanations import DIFFER, parts
from calipy.ctl.stores import location, opened
from calipy.datastore.stores import Store
from calipy.explain.answers import Answer, answers
from calipy.explain.inhabitants import World
from calipy.explain.questions import SOURCE_PORT, Ends, Question, Transport, families, question
from calipy.felix.calc import world
from calipy.resources import ip_pools, kinds, services
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Key, Refused, Resource, accept

DIFFERENT, DENIED = 3, 4
"""Exit statuses."""
_READ = (*world.WATCHED, services.KIND.name)


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

    Both the specifications and the rules that nodes compile are asked, by the objects in the datastore: what they say
    is in force when `wait --for=programmed` says so. Without --family all families that both ends have are asked.

    Exit status: 0 answered, be it allowed or denied; 1 the question can't be answered; 2 wrong usage; 3 the two answers
    differ; with --exit-code, 4 denied. In -o json, `allowed` says it.
    """
    if bool(source) == bool(destination):
        raise click.UsageError("name the other end: --from END or --to END, one of them")
    pair = (source, end) if source else (end, destination)
    output = "wide" if verbose and output == "table" else output

    async def work() -> tuple[dict[Key, Resource], dict[str, str]]:
        async with opened(location(datastore, os.environ)) as store:
            return await read(store)

    objects, refused = run(work())
    ends = Ends(objects)
    asked = question(ends, ends.named(pair[0], namespace), ends.named(pair[1], namespace), protocol, port, source_port)
    found = _explained(objects, ends, asked, family, refused)
    _show(found, output)
    if not found.agreed:
        sys.exit(DIFFERENT)
    if exit_code and not found.allowed:
        sys.exit(DENIED)


def _explained(
    objects: World, ends: Ends, asked: Question, family: Literal["4", "6", "both"], refused: Mapping[str, str]
) -> Explanation:
    found = answers(objects, ends, asked, families(asked.source, asked.destination, family))
    return Explanation(
        question=asked, allowed=all(answer.allowed for answer in found), agreed=all(answer.agreed for answer in found),
        answers=found, left_out=refused,
    )  # fmt: skip


def _show(found: Explanation, output: Literal["table", "wide", "json", "yaml"]) -> None:
    for name, reason in found.left_out.items():
        click.echo(f"note: {name} is left out: {reason}; a node that knew it when it was right keeps to that", err=True)
    if output == "json" or output == "yaml":
        write_document(found, output, sys.stdout)
    else:
        show_parts(list(parts(found.question, found.answers, wide=output == "wide")), output)
    if not found.agreed:
        click.echo(click.style(f"\n{DIFFER}", fg="red", bold=True), err=True)


async def read(store: Store) -> tuple[dict[Key, Resource], dict[str, str]]:
    """The objects that bear on policy, as nodes accept them, and those that they refuse, with the reason."""
    objects: dict[Key, Resource] = {}
    refused: dict[str, str] = {}
    for name in _READ:
        async for page in store.list(kinds.BY_NAME[name]):
            for stored in page.items:
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
    return objects, refused
