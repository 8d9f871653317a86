"""The commands of pycalicoctl that change one object: `patch`, `label`."""

from __future__ import annotations

import os

import click

from calipy.console.commands import run
from calipy.ctl import editing
from calipy.ctl.selection import One, one
from calipy.ctl.stores import location, opened


def _meant(kind: str, name: str, namespace: str) -> One:
    return one(f"{kind}/{name}", namespace)


@click.command()
@click.argument("kind", metavar="KIND")
@click.argument("name", metavar="NAME")
@click.option("-p", "--patch", "text", required=True, metavar="PATCH", help="The fields to change, in JSON or YAML.")
@click.option(
    "-t", "--type", "form", type=click.Choice(["strategic", "json", "merge"]), default="strategic", show_default=True,
    help="All of them merge: what is given replaces what is there, null removes it.",
)  # fmt: skip
@click.option("-n", "--namespace", default="default", show_default=True)
@click.pass_obj
def patch(datastore: str, kind: str, name: str, text: str, form: str, namespace: str) -> None:
    """Change fields of an object."""
    meant, given = _meant(kind, name, namespace), editing.patch_of(text, form)

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            await editing.patch(store, meant, given, click.echo)

    run(work())


@click.command()
@click.argument("kind", metavar="KIND")
@click.argument("name", metavar="NAME")
@click.argument("word", metavar="KEY=VALUE|KEY")
@click.option("--overwrite", is_flag=True, help="Put the value in the place of another.")
@click.option("--remove", is_flag=True, help="Take the label KEY away.")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.pass_obj
def label(
    datastore: str, kind: str, name: str, word: str, overwrite: bool, remove: bool, namespace: str
) -> None:  # fmt: skip
    """Set a label on an object, or remove one."""
    meant = _meant(kind, name, namespace)

    async def work() -> None:
        async with opened(location(datastore, os.environ)) as store:
            await editing.label(
                store, meant, word, overwrite=overwrite, remove=remove, shown=f"{kind} {name}", say=click.echo
            )

    run(work())
