"""Entry points: `calipy` with its commands. Each command imports its part when it is called."""

from __future__ import annotations

import sys

import click

from calipy.console.commands import Program


@click.group(cls=Program, lazy={"lab": "calipy.lab.commands:lab"})
def calipy() -> None:
    """CalIPy: a routed pod network for Kubernetes in the manner of Calico."""


@calipy.command()
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="default: info")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="default: text")
def agent(log_level: str | None, log_format: str | None) -> None:
    """Run this node's agent (settings: environment, see calipy.settings)."""
    from calipy.agent import run

    sys.exit(run(log_level, log_format))


@calipy.command()
def bgp() -> None:
    """Run ExaBGP as this node's agent configures it (CALIPY_BGP_DIR: where they meet)."""
    import os

    from calipy.bgp.sidecar import run
    from calipy.settings import SettingError, read

    try:
        folder = read(os.environ).bgp_folder
    except SettingError as error:
        sys.exit(f"calipy bgp: {error}")
    run(folder)


@calipy.command("install-cni")
@click.argument("folder", default="/opt/cni/bin", envvar="CALIPY_CNI_BIN_DIR")
@click.option("--forwarder", default="", help="the built forwarder; default: the one that came with this program")
@click.option(
    "--update/--no-update", default=True, envvar="UPDATE_CNI_BINARIES", help="whether one that is there is replaced"
)
def install_cni(folder: str, forwarder: str, update: bool) -> None:
    """Copy the CNI forwarder into FOLDER, where the container runtime looks for plug-ins, and try it
    (CALIPY_CNI_BIN_DIR, UPDATE_CNI_BINARIES: the same in the environment)."""
    from calipy.cni.install import Unusable, install_forwarder
    from calipy.console.failures import Failure

    try:
        click.echo(install_forwarder(folder, forwarder, update=update))
    except Unusable as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.strerror is None:
            raise click.ClickException(str(error)) from error
        remedy = "name a folder that can be made and written"
        raise Failure(f"folder {folder}", f"{error.filename}: {error.strerror}", remedy) from error


@calipy.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def health(options: tuple[str, ...]) -> None:
    """Is this node's agent well? For probes (calipy health --help)."""
    from calipy.node import probe

    sys.exit(probe.main(options))


def main() -> None:
    """The `calipy` command."""
    calipy(prog_name="calipy")


def pycalicoctl() -> None:
    """The `pycalicoctl` command."""
    from calipy.ctl.main import pycalicoctl as program

    program(prog_name="pycalicoctl")


if __name__ == "__main__":
    main()
