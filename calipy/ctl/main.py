"""The commands of pycalicoctl."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from calipy.console.commands import Program, output_option, run
from calipy.console.failures import Failure, Failures
from calipy.ctl.stores import chosen, location, opened

F = TypeVar("F", bound=Callable[..., Any])


_LAZY = {
    "explain": "calipy.ctl.explaining:explain",
    "ipam": "calipy.ctl.ipam_commands:ipam",
    "label": "calipy.ctl.edit_commands:label",
    "node": "calipy.ctl.node_commands:node",
    "patch": "calipy.ctl.edit_commands:patch",
}


@click.group(cls=Program, lazy=_LAZY)
@click.option(
    "--datastore",
    default="",
    metavar="sqlite:PATH|kubernetes[:KUBECONFIG]",
    help="Default: CALIPY_DATASTORE, else a running lab's, else the cluster of KUBECONFIG or of this pod.",
)
@click.option("--kubeconfig", default="", metavar="PATH", help="Short for --datastore kubernetes:PATH.")
@click.pass_context
def pycalicoctl(ctx: click.Context, datastore: str, kubeconfig: str) -> None:
    """Read and write the objects of a cluster, in its datastore."""
    ctx.obj = chosen(datastore, kubeconfig)


def _namespace_option(command: F) -> F:
    return click.option("-n", "--namespace", default="default", show_default=True)(command)


def _file_options(required: bool) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        files = click.option(
            "-f", "--filename", "filenames", multiple=True, required=required, metavar="FILE|DIR|-",
            help="YAML or JSON, of one or more documents; - is standard input.",
        )  # fmt: skip
        recursive = click.option("-R", "--recursive", is_flag=True, help="Look into the folders of a DIR, too.")
        empty = click.option("--skip-empty", is_flag=True, help="Files without documents are no failure.")
        return files(recursive(empty(command)))

    return decorate


@pycalicoctl.command()
@click.argument("kind", metavar="KIND[,KIND...]|KIND/NAME")
@click.argument("names", nargs=-1)
@_namespace_option
@click.option("-A", "-a", "--all-namespaces", "every_namespace", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", default="", help="k=v,k2!=v2, or Calico's selector language.")
@click.option(
    "-o", "--output", default="table", show_default=True, metavar="FORM",
    help="table (or ps), wide, json, yaml, name, custom-columns=NAME,..., go-template=..., go-template-file=FILE.",
)  # fmt: skip
@click.option("--export", is_flag=True, help="Documents without what only this cluster knows.")
@click.pass_obj
def get(
    datastore: str, kind: str, names: Sequence[str], namespace: str, every_namespace: bool, selector: str, output: str,
    export: bool,
) -> None:  # fmt: skip
    """Show objects: all of a kind, or those named."""
    from calipy.ctl.forms import form_of
    from calipy.ctl.getting import get as show
    from calipy.ctl.selection import labels_match, selected

    form, wanted = form_of(output), selected([kind, *names])
    matches = labels_match(selector)

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            await show(
                store, wanted, namespace=namespace, every_namespace=every_namespace, matches=matches, form=form,
                export=export, stream=sys.stdout,
            )  # fmt: skip

    run(work())


def _write_command(name: str, does: str) -> None:
    @pycalicoctl.command(name, help=does)
    @_file_options(required=True)
    @_namespace_option
    @click.pass_obj
    def command(datastore: str, /, **given: Any) -> None:
        _write(datastore, name, **given)


def _write(
    datastore: str, verb: Any, filenames: Sequence[str], recursive: bool, skip_empty: bool, namespace: str,
    skip_exists: bool = False,
) -> None:  # fmt: skip
    from calipy.ctl.writing import write

    objects = _wanted(filenames, recursive, namespace, skip_empty=skip_empty)

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            await write(store, verb, objects, click.echo, skip_exists=skip_exists)

    run(work())


_write_command("apply", "Make the objects, or change those that exist to what is given; labels of others stay.")
_write_command("replace", "Put the objects in the place of existing ones; all of them must exist.")


@pycalicoctl.command()
@_file_options(required=True)
@_namespace_option
@click.option("--skip-exists", is_flag=True, help="Leave alone what exists already.")
@click.pass_obj
def create(datastore: str, /, **given: Any) -> None:
    """Make the objects; none of them may exist."""
    _write(datastore, "create", **given)


@pycalicoctl.command()
@_file_options(required=True)
@_namespace_option
def validate(filenames: Sequence[str], recursive: bool, skip_empty: bool, namespace: str) -> None:
    """Say whether the objects are right by themselves; no cluster is asked."""
    for wanted in _wanted(filenames, recursive, namespace, skip_empty=skip_empty):
        click.echo(f"{wanted.kind.key(wanted.value)} is valid")


@pycalicoctl.command()
@click.argument("words", nargs=-1, metavar="[KIND NAME...|KIND/NAME...]")
@_file_options(required=False)
@_namespace_option
@click.option(
    "-s", "--ignore-not-found", "--skip-not-exists", is_flag=True, help="An object that doesn't exist is no failure."
)  # fmt: skip
@click.pass_obj
def delete(
    datastore: str, words: Sequence[str], filenames: Sequence[str], recursive: bool, skip_empty: bool, namespace: str,
    ignore_not_found: bool,
) -> None:  # fmt: skip
    """Delete objects, by name or as they stand in a file."""
    from calipy.ctl.writing import delete as delete_all

    doomed = _doomed(words, filenames, recursive, namespace, skip_empty=skip_empty)

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            await delete_all(store, doomed, click.echo, ignore_not_found=ignore_not_found)

    run(work())


@pycalicoctl.command()
@click.argument("word", metavar="KIND/NAME|KIND/NAMESPACE/NAME")
@click.option("--for", "condition", type=click.Choice(["programmed"]), required=True, help="What to wait for.")
@click.option("--timeout", "timeout", default="30s", show_default=True, metavar="10s|1m30s", help="How long at most.")
@_namespace_option
@click.pass_obj
def wait(datastore: str, word: str, condition: str, timeout: str, namespace: str) -> None:
    """Wait until a policy, a tier or a set is in force on all nodes."""
    from calipy.ctl.selection import duration, one
    from calipy.ctl.waiting import wait as wait_for

    found, seconds = one(word, namespace), duration("--timeout", timeout)

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            await wait_for(store, found.kind, found.name, found.namespace, timeout_s=seconds, say=click.echo)

    run(work())


@pycalicoctl.command()
@click.option("--client", "client_only", is_flag=True, help="Don't ask the cluster.")
@output_option("table", "json", "yaml")
@click.pass_obj
def version(datastore: str, client_only: bool, output: Any) -> None:
    """Show the versions of this program and of the cluster."""
    from calipy.ctl.versions import show_versions

    run(show_versions("" if client_only else location(datastore, os.environ), output, sys.stdout))


def _wanted(filenames: Sequence[str], recursive: bool, namespace: str, *, skip_empty: bool) -> list[Any]:
    """All objects of all documents. Raises Failures with all that is wrong with any of them."""
    from calipy.ctl.documents import wanted
    from calipy.ctl.sources import read
    from calipy.resources.metadata import Refused

    given, wrong = read(filenames, recursive=recursive, skip_empty=skip_empty, stdin=sys.stdin.buffer)
    objects = []
    for document in given:
        try:
            objects.append(wanted(document, namespace))
        except Refused as refused:
            wrong.append(refused)
    if wrong:
        raise Failures(wrong)
    return objects


def _doomed(
    words: Sequence[str], filenames: Sequence[str], recursive: bool, namespace: str, *, skip_empty: bool
) -> list[Any]:  # fmt: skip
    from calipy.ctl.selection import selected
    from calipy.ctl.writing import Doomed
    from calipy.resources.metadata import Key

    if bool(words) == bool(filenames):
        raise Failure("delete", "wants objects, by name or by -f", "name KIND and NAME, or a file")
    if filenames:
        objects = _wanted(filenames, recursive, namespace, skip_empty=skip_empty)
        return [Doomed(each.kind, each.kind.key(each.value)) for each in objects]
    found = selected(words)
    if not all(each.names for each in found):
        raise Failure("delete", "wants the names of objects", "write KIND NAME..., or KIND/NAME...")
    return [
        Doomed(each.kind, Key(each.kind.name, name, namespace if each.kind.namespaced else ""))
        for each in found
        for name in each.names
    ]
