"""`pycalicoctl node`: this node, as its agent sees it."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any

import click

from calipy.console.commands import output_option, run
from calipy.console.failures import Failure
from calipy.console.formats import write_document
from calipy.ctl import node_status
from calipy.explain.query import Unanswered, ask
from calipy.explain.report import NodeReport
from calipy.settings import read

_SOCKET = "query.sock"


@click.group()
def node() -> None:
    """Look after this node."""


@node.command()
@output_option("table", "json", "yaml")
def status(output: Any) -> None:
    """Show whether this node's agent works, and its BGP sessions."""
    path = read(os.environ).run_folder / _SOCKET
    try:
        report = run(ask(path, "status", NodeReport))
    except Unanswered as error:
        remedy = "start it, or say with CALIPY_RUN_DIR where its files are"
        raise Failure("Calico process is not running", str(error), remedy) from error
    if output == "table":
        for line in node_status.lines(report, datetime.now()):
            click.echo(line)
    else:
        write_document(report, output, sys.stdout)
