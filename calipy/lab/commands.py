"""`calipy lab`: the lab's commands, each a short way from words to what does the work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from calipy.console.commands import Program, output_option, run
from calipy.console.failures import Failure
from calipy.console.formats import Output, counted
from calipy.console.progress import Steps
from calipy.console.tables import show, show_parts
from calipy.lab import cluster, connections, folders, lifecycle, pods, reachability, views
from calipy.lab.cluster import AGENT, BGP, Lab
from calipy.lab.connections import Family
from calipy.lab.pods import Protocol
from calipy.lab.runner import ADD_LIMIT_S, LIMIT_S
from calipy.lab.topology import NODES_MOST, VXLAN_MODES, Encapsulation, Families, Plan
from calipy.resources.durations import parse_seconds

T = TypeVar("T")
_NOTICE_S = 3.0
_TIMEOUT_MOST_S = 60


@click.group(cls=Program)
def lab() -> None:
    """A whole cluster on this machine: namespaces as computers, real agents, real BGP, real packets."""
    if os.geteuid() != 0:
        raise Failure("the lab", "makes network namespaces", "run it as root")
    # Debian's `su` leaves out where bird, nft and sysctl are; the lab's machines and `exec` look where we do.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def _do(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's work. A signal that would end it cancels it, so that it can tidy up."""

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await work

    try:
        return run(cancellable())
    except asyncio.CancelledError:
        raise click.Abort from None


def _lab() -> Lab:
    return Lab.running(_folder())


def _folder() -> Path:
    return folders.folder_from(os.environ)


PARTS = click.Choice([AGENT, BGP])


@lab.command()
@click.option("--nodes", type=click.IntRange(1, NODES_MOST), default=3, show_default=True, help="How many.")
@click.option("--encapsulation", type=click.Choice(list(VXLAN_MODES)), default="none", show_default=True)
@click.option("--families", type=click.Choice(["ipv4", "dual"]), default="dual", show_default=True)
def up(nodes: int, encapsulation: str, families: str) -> None:
    """Start a lab."""
    plan = Plan(count=nodes, encapsulation=cast(Encapsulation, encapsulation), families=cast(Families, families))
    _do(lifecycle.up(_folder(), plan, Steps(sys.stderr)))
    click.echo("The lab is up. Try: calipy lab status; calipy lab pod add web --node n1 --listen TCP/80")


@lab.command()
def down() -> None:
    """Remove the lab, or what a crash has left of one."""
    click.echo("The lab is gone." if _do(lifecycle.down(_folder())) else "There was no lab.")


@lab.command()
@output_option("table", "wide", "json")
def status(output: Output) -> None:
    """Show the nodes, and what their agents complain of."""
    rows = _do(views.node_rows(_lab()))
    show(rows, views.NODE_COLUMNS, output)
    problems = views.problem_rows(rows, notices=output == "wide")
    if problems and output != "json":
        click.echo()
        show(problems, views.PROBLEM_COLUMNS, output)


@lab.command("pods")
@output_option("table", "wide", "json")
def list_pods(output: Output) -> None:
    """Show the pods."""
    lab = _lab()

    async def rows() -> tuple[views.PodRow, ...]:
        async with lab.store() as store:
            return await views.pod_rows(lab, store)

    show(_do(rows()), views.POD_COLUMNS, output)


@lab.group()
def pod() -> None:
    """Make and remove pods."""


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise Failure(option, "is not a key and a value", "write key=value", value=text)
        found[key] = value
    return found


@contextlib.contextmanager
def _patience(node: str, limit_s: float) -> Iterator[None]:
    """Tells after a while for whom we wait, and how long."""
    told = f"node {node} has not answered for {_NOTICE_S:g} s; it is given up within {limit_s:g} s"
    notice = asyncio.get_running_loop().call_later(_NOTICE_S, partial(click.echo, told, err=True))
    try:
        yield
    finally:
        notice.cancel()


@pod.command()
@click.argument("name")
@click.option("--node", required=True)
@click.option("--namespace", "-n", default="default", show_default=True)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE")
@click.option("--listen", "listens", multiple=True, metavar="TCP/80", help="Run an echo process on this port.")
def add(
    name: str, node: str, namespace: str, labels: Sequence[str], annotations: Sequence[str], listens: Sequence[str]
) -> None:
    """Make a pod. Whatever the node does, the command ends within a minute and a half."""
    wish = pods.Wish(
        name=name, node=node, namespace=namespace, labels=_pairs("--label", labels),
        annotations=_pairs("--annotation", annotations), listens=tuple(map(pods.parse_listen, listens)),
    )  # fmt: skip
    lab = _lab()

    async def work() -> pods.Sandbox:
        with _patience(wish.node, ADD_LIMIT_S + LIMIT_S):
            async with lab.store() as store:
                return await pods.add(lab, store, wish)

    made = _do(work())
    click.echo(f"pod {made} on {made.node}: {' '.join(made.addresses)}")


@pod.command()
@click.argument("name")
@click.option("--namespace", "-n", default="default", show_default=True)
def delete(name: str, namespace: str) -> None:
    """Remove a pod."""
    lab = _lab()
    found = pods.named(lab, name if "/" in name else f"{namespace}/{name}")

    async def work() -> None:
        with _patience(found.node, LIMIT_S):
            async with lab.store() as store:
                await pods.delete(lab, store, found)

    _do(work())
    click.echo(f"pod {found} is gone")


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, command: Sequence[str]) -> None:
    """Run a command in a pod, or on a machine (n1, tor, outside)."""
    lab = _lab()
    if command[0] == "--":
        command = command[1:]
    if name in lab.machines:
        argv = lab.machines[name].inside(*command) if name not in lab.nodes else lab.need_power(name).inside(*command)
    else:
        found = pods.named(lab, name)
        # ip(8) ends with 1 where there is no such command, nsenter(1) with 127, or 126 where it can't be executed.
        argv = lab.need_power(found.node).inside("ip", "netns", "exec", found.netns, "nsenter", "--", *command)
    os.execvp(argv[0], argv)


@lab.command()
@click.argument("node")
@output_option("table", "json")
def logs(node: str, output: Output) -> None:
    """Show what a machine's processes have printed."""
    lab = _lab()
    if node not in lab.machines:
        lab.node(node)
    texts = {place.stem: place.read_text(errors="replace") for place in sorted((lab.folder / node).glob("*.log"))}
    if output == "json":
        click.echo(_json({name: text.splitlines() for name, text in texts.items()}), nl=False)
        return
    for name, text in texts.items():
        if text:
            click.echo(click.style(f"== {name}", bold=True))
            click.echo(text, nl=not text.endswith("\n"))


def _json(value: object) -> str:
    from calipy.console.formats import json_text

    return json_text(value)


@lab.command("ping-matrix")
@output_option("table", "json")
def ping_matrix(output: Output) -> None:
    """Let every pod and node try every pod, and every pod the outside. Exit status 1 if one can't."""
    lab = _lab()
    probes = _do(reachability.matrix(lab))
    if output == "json":
        click.echo(_json(probes), nl=False)
    else:
        if not probes:
            raise Failure("the lab", "has no pods to try", "make one: calipy lab pod add NAME --node n1")
        show_parts([views.reachability("", probes)], output)
        for probe in probes:
            if probe.complaint:
                click.echo(probe.complaint)
    if not all(probe.good for probe in probes):
        sys.exit(1)


def _seconds(_context: click.Context, _option: click.Parameter, text: str) -> float:
    try:
        seconds = parse_seconds(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _TIMEOUT_MOST_S:
        raise Failure("--timeout", "is no time to wait", f"write 500ms, 1s, at most {_TIMEOUT_MOST_S}s", value=text)
    return seconds


@lab.command()
@click.argument("client")
@click.argument("server", metavar="SERVER:PORT")
@click.option("--protocol", type=click.Choice(["TCP", "UDP", "SCTP"], case_sensitive=False), default="TCP")
@click.option("--family", type=click.Choice(["4", "6", "both"]), default="both", show_default=True)
@click.option("--timeout", "timeout_s", default="1s", show_default=True, callback=_seconds, help="For an answer.")
@output_option("table", "json")
def probe(client: str, server: str, protocol: Protocol, family: Family, timeout_s: float, output: Output) -> None:
    """Try one connection: from a pod, a node or outside, to a port of one of them or of an address.

    SERVER:PORT is web:80, shop/web:80, n1:22, 10.0.0.1:80 or [fd00::1]:80. Both families are tried where both ends
    have them. Exit status 0 only if all that was tried is allowed.
    """
    found = _do(connections.probe(_lab(), client, server, protocol, family, timeout_s))
    show(found, views.ATTEMPT_COLUMNS, output)
    if not all(attempt.verdict == "allowed" for attempt in found):
        sys.exit(1)


@lab.command()
@click.argument("node")
@click.argument("part", required=False, type=PARTS)
def restart(node: str, part: cluster.Part | None) -> None:
    """Restart a node, or its agent or BGP speaker; switches a node on that has no power."""
    lab = _lab()
    lab.node(node)

    async def work() -> int:
        if part is not None:
            await lab.restart(node, part)
            return 0
        if lab.on(node):
            await lab.power_off(node)
        await lab.power_on(node)
        async with lab.store() as store:
            gone = await pods.clear_after_power_cut(lab, store, node)
        await lab.sessions_up(node)
        return len(gone)

    gone = _do(work())
    lost = f"; of its {counted(gone, 'pod')} none is left" if gone else ""
    click.echo(f"{node}: {part or 'the node'} is back{lost}")


@lab.command()
@click.argument("node")
@click.argument("part", required=False, type=PARTS)
def kill(node: str, part: cluster.Part | None) -> None:
    """Kill a node's agent or BGP speaker, which come back by themselves; or cut the node's power."""
    lab = _lab()
    _do(lab.power_off(node) if part is None else lab.kill(node, part))
    back = f"; switch it on again: calipy lab restart {node}" if part is None else ""
    click.echo(f"{node}: {'the power is off' if part is None else f'{part} was killed'}{back}")


@lab.command()
@click.argument("node")
def cut(node: str) -> None:
    """Take the carrier from a node's uplink."""
    _do(_lab().cut(node))
    click.echo(f"{node}: the uplink is cut; mend it: calipy lab heal {node}")


@lab.command()
@click.argument("node")
def heal(node: str) -> None:
    """Give it back."""
    _do(_lab().cut(node, heal=True))
    click.echo(f"{node}: the uplink is whole")


@lab.command()
@click.option("--keep", is_flag=True, help="Leave the lab running.")
def demo(keep: bool) -> None:
    """Start a lab, show what it does, remove it."""
    from calipy.lab.demo import demonstrate

    sys.exit(_do(demonstrate(_folder(), keep=keep)))
