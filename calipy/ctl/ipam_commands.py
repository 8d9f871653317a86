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
from calipy.ipam.blocks import address_at
from calipy.ipam.judge import judge
from calipy.ipam.judge.values import Allocation, Snapshot, Verdict
from calipy.ipam.snapshot import read
from calipy.resources import cluster_informations
from calipy.resources.ipam_blocks import AllocationAttribute


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
        _show_properties(snapshot, output)
    elif show_borrowed:
        show(ipam_show.borrowed(verdict), ipam_show.BORROWED_COLUMNS, output)
    else:
        show(ipam_show.usages(snapshot, verdict, blocks=show_blocks), ipam_show.USAGE_COLUMNS, output)


@ipam.command()
@click.option("--ip", default="", metavar="IP", help="The address to take back.")
@click.option(
    "--from-report", "files", multiple=True, metavar="FILE",
    help="Take back what this report of `ipam check -o FILE`, and each other one, calls unused.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="An address even if its pod or node uses it; a report of any version.")
@click.pass_obj
def release(datastore: str, ip: str, files: tuple[str, ...], force: bool) -> None:
    """Take addresses back that nobody uses any more."""
    from calipy.ctl import ipam_release, ipam_reports
    from calipy.ctl.versions import client_version

    if bool(ip) == bool(files):
        raise Failure("ipam release", "wants an address or reports", "give --ip, or --from-report")
    address = _canonical(ip) if ip else ""
    reports = [ipam_reports.decoded(file, Path(file).read_bytes()) for file in files]

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            if reports:
                await ipam_release.release_reported(
                    store, reports, force=force, version=client_version(), say=click.echo
                )
            else:
                await ipam_release.release_address(store, address, force=force, say=click.echo)

    run(work())


@ipam.command()
@click.argument("what", type=click.Choice(["show"]), required=False, metavar="[show]")
@click.option("--strictaffinity", type=bool, metavar="true|false", help="Whether no node may borrow addresses.")
@click.option("--max-blocks-per-host", type=int, metavar="N", help="Blocks of a node and family; 0 is 20.")
@click.option("--ip-cooldown-seconds", type=int, metavar="N", help="How long an address rests before it is given out.")
@click.option(
    "--kubevirt-ip-persistence", type=click.Choice(["Enabled", "Disabled"]), help="Whether a VM keeps its address."
)
@click.pass_obj
def configure(
    datastore: str, what: str | None, strictaffinity: bool | None, max_blocks_per_host: int | None,
    ip_cooldown_seconds: int | None, kubevirt_ip_persistence: Any,
) -> None:  # fmt: skip
    """Change how addresses are given out, or show it."""
    from calipy.ctl import ipam_configure

    if what == "show":
        snapshot, _ = run(_judged(location(datastore, os.environ)))
        _show_properties(snapshot, "table")
        return
    asked = ipam_configure.Asked(
        strict_affinity=strictaffinity, max_blocks_per_host=max_blocks_per_host,
        ip_cooldown_seconds=ip_cooldown_seconds, kube_virt_vm_address_persistence=kubevirt_ip_persistence,
    )  # fmt: skip

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            for line in await ipam_configure.configure(store, asked):
                click.echo(line)

    run(work())


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


def _show_properties(snapshot: Snapshot, output: Any) -> None:
    columns = [Column[Any]("PROPERTY", lambda row: row[0]), Column[Any]("VALUE", lambda row: str(row[1]).lower())]
    show(list(ipam_show.properties(snapshot.configuration).items()), columns, output, document=dict)


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
