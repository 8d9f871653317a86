"""`python -m tests.cluster up|down`: a real Kubernetes cluster on this machine (make cluster, make cluster-down)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from calipy.console.failures import tell
from calipy.console.progress import Steps
from tests.cluster import binaries, lifecycle, ours
from tests.cluster.cluster import Plan

_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default="/var/tmp/calipy-cluster",
    show_default=True,
    help="Everything of the cluster lies there; its last part is in the names of cgroups.",
)


@click.group()
def main() -> None:
    """A real Kubernetes cluster on this machine."""


@main.command()
@click.option("--nodes", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option("--proxy", type=click.Choice(["iptables", "nftables", "none"]), default="iptables", show_default=True)
@click.option("--network", type=click.Choice(["calipy", "ptp", "none"]), default="calipy", show_default=True)
@click.option("--image", "images", multiple=True, type=click.Path(exists=True, path_type=Path), help="An archive.")
@_FOLDER
def up(folder: Path, images: tuple[Path, ...], **plan: object) -> None:
    """Makes the cluster, and prints its kubeconfig's path."""
    programs = binaries.ensure(*binaries.CLUSTER)
    steps = Steps(sys.stderr)
    if plan["network"] == "calipy":
        images = (*images, asyncio.run(ours.archive(steps)))
    wanted = Plan(programs=programs, images=images, **plan)  # type: ignore[arg-type]
    cluster = asyncio.run(lifecycle.up(folder, wanted, steps))
    print(f"export KUBECONFIG={cluster.kubeconfig}")


@main.command()
@_FOLDER
def down(folder: Path) -> None:
    """Removes it, or what is left of it."""
    there = asyncio.run(lifecycle.down(folder))
    print("removed" if there else f"there is no cluster in {folder}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        tell(error, sys.stderr)
        sys.exit(1)
