"""`pycalicoctl ipam`: is every address where it should be, and how many are there."""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from calipy.console.commands import output_option, run
from calipy.console.failures import Failure
from calipy.console.formats import json_text, write_document
from calipy.console.tables import Column, show
from calipy.ctl import ipam_check, ipam_show
from calipy.ctl.stores import location, opened
from calipy.ipam.allocator import Allocator
from calipy.ipam.blocks import address_at
from calipy.ipam.judge import judge
from calipy.ipam.judge.values import Allocation, Snapshot, Verdict
from calipy.ipam.snapshot import read
from calipy.resources import cluster_informations
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_blocks import AllocationAttribute
from calipy.resources.ipam_configurations import IPAMConfiguration


@click.group()
def ipam() -> None:
    """Look after the cluster's addresses."""


@ipam.command()
@click.option("--show-all-ips", is_flag=True, help="Print all IPs that are checked.")
@click.option("--show-problem-ips", is_flag=True, help="Print what is wrong, one line each, and what to do.")
@click.option(
    "-o", "--output", default="", metavar="table|json|FILE",
    help="json: the findings and totals; a file: calicoctl's report besides.",
)  # fmt: skip
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there is a problem.")
@click.pass_obj
def check(datastore: str, show_all_ips: bool, show_problem_ips: bool, output: str, exit_code: bool) -> None:
    """Check that allocations, blocks, handles, pods and nodes agree."""
    snapshot, verdict = run(_judged(location(datastore, os.environ)))
    if output == "json":
        sys.stdout.write(json_text(verdict))
    else:
        for line in ipam_check.lines(snapshot, verdict, all_ips=show_all_ips, problem_ips=show_problem_ips):
            click.echo(line)
    if output not in ("", "table", "json"):
        report = run(_report(location(datastore, os.environ), snapshot, verdict))
        Path(output).write_text(json_text(report))
    if exit_code and ipam_check.problems(verdict):
        sys.exit(1)


@ipam.command("show")
@click.option("--ip", default="", metavar="IP", help="Only this address.")
@click.option("--show-blocks", is_flag=True, help="The blocks of each pool, too.")
@click.option("--show-borrowed", is_flag=True, help="Addresses in use on another node than their block's owner.")
@click.option("--show-configuration", is_flag=True, help="How addresses are given out.")
@output_option("table", "json", "yaml")
@click.pass_obj
def show_command(
    datastore: str, ip: str, show_blocks: bool, show_borrowed: bool, show_configuration: bool, output: Any
) -> None:  # fmt: skip
    """Show how many addresses there are, and who has them."""
    wanted = _canonical(ip) if ip else ""
    snapshot, verdict = run(_judged(location(datastore, os.environ)))
    if wanted:
        _show_address(snapshot, verdict, wanted, output)
    elif show_configuration:
        columns = [Column[Any]("PROPERTY", lambda row: row[0]), Column[Any]("VALUE", lambda row: str(row[1]).lower())]
        show(list(ipam_show.properties(snapshot.configuration).items()), columns, output, document=dict)
    elif show_borrowed:
        show(ipam_show.borrowed(verdict), ipam_show.BORROWED_COLUMNS, output)
    else:
        show(ipam_show.usages(snapshot, verdict, blocks=show_blocks), ipam_show.USAGE_COLUMNS, output)


@ipam.command()
@click.option("--ip", required=True, metavar="IP", help="The address to take back.")
@click.option("--force", is_flag=True, help="Even if its pod or node uses it.")
@click.pass_obj
def release(datastore: str, ip: str, force: bool) -> None:
    """Take an address back that nobody uses any more."""
    run(_release(location(datastore, os.environ), _canonical(ip), force=force))


async def _judged(datastore: str) -> tuple[Snapshot, Verdict]:
    async with opened(datastore) as store:
        snapshot = await read(store)
    return snapshot, judge(snapshot, time.time())


async def _report(datastore: str, snapshot: Snapshot, verdict: Verdict) -> dict[str, object]:
    from calipy.ctl.versions import client_version

    async with opened(datastore) as store:
        found = [stored async for page in store.list(cluster_informations.KIND) for stored in page.items]
    own = [stored for stored in found if stored.key.name == "default"]
    spec = own[0].value.spec if own else cluster_informations.ClusterInformationSpec()
    revision = str(own[0].revision) if own else ""
    return ipam_check.report(snapshot, verdict, spec, revision=revision, version=client_version())


def _canonical(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError as error:
        raise Failure("--ip", "is no address", "write an IPv4 or IPv6 address", value=ip) from error


def _show_address(snapshot: Snapshot, verdict: Verdict, ip: str, output: Any) -> None:
    found = ipam_show.address(ip, _attribute(snapshot, ip), _allocation(verdict, ip))
    if output == "table":
        for line in ipam_show.address_lines(found):
            click.echo(line)
    else:
        write_document(found, output, sys.stdout)


def _allocation(verdict: Verdict, ip: str) -> Allocation | None:
    return next((found for found in verdict.allocations if found.address == ip), None)


def _attribute(snapshot: Snapshot, ip: str) -> AllocationAttribute | None:
    import msgspec

    for block in snapshot.blocks:
        for ordinal, index in enumerate(block.spec.allocations):
            if index is not None and index < len(block.spec.attributes) and address_at(block, ordinal) == ip:
                return msgspec.json.decode(block.spec.attributes[index], type=AllocationAttribute)
    return None


class _Inputs:
    """What the allocator wants to know, from a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def pools(self) -> tuple[IPPool, ...]:
        return self._snapshot.pools

    def reservations(self) -> tuple[IPReservation, ...]:
        return self._snapshot.reservations

    def configuration(self) -> IPAMConfiguration:
        return self._snapshot.configuration

    def node_labels(self) -> dict[str, str]:
        return {}

    def affinities(self) -> tuple[BlockAffinity, ...]:
        return self._snapshot.affinities


async def _release(datastore: str, ip: str, *, force: bool) -> None:
    async with opened(datastore) as store:
        snapshot = await read(store)
        found = _allocation(judge(snapshot, time.time()), ip)
        if found is None:
            click.echo(f"{ip} is not assigned")
            return
        if found.standing in ("used", "starting", "unknowable") and not force:
            holder = f"pod {found.namespace}/{found.pod}" if found.pod else f"handle {found.handle or '(none)'}"
            reason = f"is held by {holder}, {found.reason or 'which uses it'}"
            raise Failure(f"address {ip}", reason, "delete its holder, or give --force if you know better")
        # An allocator of no node: it claims nothing and gives up no claim.
        allocator = Allocator(store, "", _Inputs(snapshot), time.time)
        released = await allocator.release_address(ip, found.handle or None, found.sequence)
    click.echo(f"Successfully released IP address {ip}" if released else f"{ip} is not assigned")
